//! A step, how long it lasted, and the rules of its fields and of the filters. No I/O happens here.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::http::problem::FieldError;

/// Longest text of a field, in characters: as long as a container image's tag may be (OCI distribution specification).
pub const TEXT_MAX_CHARS: usize = 128;

/// What every field of a step must be.
pub const TEXT_RULE: &str = "must be a text of 1 to 128 characters without U+0000";

/// What a date and time must look like.
pub const DATETIME_RULE: &str =
    "must be a date and time in UTC of the form YYYY-MM-DD hh:mm:ss, such as 2026-01-31 12:00:00";

/// The fields a client sends, in the order they are complained about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// What is deployed.
    Component,
    /// Which version of it.
    Version,
    /// Who is responsible.
    Owner,
    /// What begins now.
    Status,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 4] = [Self::Component, Self::Version, Self::Owner, Self::Status];

    /// The parameter, JSON key and CSV column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Version => "version",
            Self::Owner => "owner",
            Self::Status => "status",
        }
    }

    /// The field that a parameter or JSON key names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// What a client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewStep<'a> {
    /// What is deployed.
    pub component: Cow<'a, str>,
    /// Which version of it.
    pub version: Cow<'a, str>,
    /// Who is responsible.
    pub owner: Cow<'a, str>,
    /// What begins now.
    pub status: Cow<'a, str>,
}

/// A step as recorded; the order of the fields is the order of JSON keys and CSV columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Step<'a> {
    /// The key; breaks ties of time.
    pub id: i64,
    /// When it began.
    #[serde(serialize_with = "in_microseconds")]
    #[schema(value_type = String, format = DateTime)]
    pub ts: Timestamp,
    /// What is deployed.
    pub component: &'a str,
    /// Which version of it.
    pub version: &'a str,
    /// Who is responsible.
    pub owner: &'a str,
    /// What began.
    pub status: &'a str,
}

/// A step and how long it lasted.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = StepDuration)]
pub struct Duration<'a> {
    /// The step's key.
    pub id: i64,
    /// What is deployed.
    pub component: &'a str,
    /// Which version of it.
    pub version: &'a str,
    /// What began.
    pub status: &'a str,
    /// Who is responsible.
    pub owner: &'a str,
    /// When it began.
    #[serde(serialize_with = "in_microseconds")]
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// When the next step of the same component and version began, if there is one.
    #[serde(serialize_with = "maybe_in_microseconds")]
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub end: Option<Timestamp>,
    /// From start to end; never negative.
    #[schema(minimum = 0, required = true)]
    pub duration_seconds: Option<f64>,
}

/// How long the steps of one status last.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = StatusSummary)]
pub struct Summary<'a> {
    /// The status.
    pub status: &'a str,
    /// Steps of this status.
    pub count: i64,
    /// Those of them that another step followed; the numbers below are theirs.
    pub finished: i64,
    /// Median duration in seconds, interpolated.
    #[schema(required = true)]
    pub median: Option<f64>,
    /// The 95th percentile of the durations in seconds, interpolated.
    #[schema(required = true)]
    pub p95: Option<f64>,
}

/// Which steps are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Steps that began at this time or later.
    pub start: Timestamp,
    /// Steps that began at this time or earlier.
    pub end: Timestamp,
    /// Steps of this component.
    pub component: Option<String>,
    /// Steps of this owner.
    pub owner: Option<String>,
}

impl Filter {
    /// The earliest start that can be written.
    pub const EARLIEST: DateTime = DateTime::constant(0, 1, 1, 0, 0, 0, 0);
    /// The latest end: a year of four digits cannot pass it by more than a day.
    pub const LATEST: Timestamp = Timestamp::MAX;
}

/// Where a step stands in the order of durations: component, version, time, id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The component.
    pub component: String,
    /// The version.
    pub version: String,
    /// The time.
    pub ts: Timestamp,
    /// The key, which breaks ties.
    pub id: i64,
}

/// The field that a constraint of the table guards; constraints are named `steps_<column>`.
pub fn constraint_field(constraint: &str) -> Option<FieldError> {
    let field = Field::from_name(constraint.strip_prefix("steps_")?)?;
    Some(FieldError::new(field.name(), TEXT_RULE))
}

/// A field's text, if it can be stored: PostgreSQL's text cannot hold U+0000.
pub fn check_text(value: &str) -> Option<&str> {
    let fits = (1..=TEXT_MAX_CHARS).contains(&value.chars().take(TEXT_MAX_CHARS + 1).count());
    (fits && !value.contains('\0')).then_some(value)
}

/// A date and time of the form `YYYY-MM-DD hh:mm:ss`, in UTC.
pub fn check_datetime(text: &str) -> Option<Timestamp> {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00";
    let bytes = text.as_bytes();
    let shaped = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    if bytes.len() != SHAPE.len() || !bytes.iter().zip(SHAPE).all(shaped) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<i8>().ok();
    let (month, day) = (number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let datetime = DateTime::new(text[..4].parse().ok()?, month, day, hour, minute, second, 0).ok()?;
    Some(instant(datetime))
}

/// The instant of a date and time in UTC; jiff's instants end a day before its dates do.
pub fn instant(datetime: DateTime) -> Timestamp {
    TimeZone::UTC.to_timestamp(datetime).unwrap_or(Filter::LATEST)
}

/// RFC 3339 in UTC with microseconds, as precise as the database keeps it.
pub fn text_of(ts: Timestamp) -> impl std::fmt::Display {
    std::fmt::from_fn(move |formatter| write!(formatter, "{ts:.6}"))
}

fn in_microseconds<S: Serializer>(ts: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&text_of(*ts))
}

fn maybe_in_microseconds<S: Serializer>(ts: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match ts {
        Some(ts) => serializer.collect_str(&text_of(*ts)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_taken_in_one_form_only() {
        for (text, expected) in [
            ("2026-01-31 12:00:00", Some("2026-01-31T12:00:00.000000Z")),
            ("2024-02-29 23:59:59", Some("2024-02-29T23:59:59.000000Z")),
            ("0000-01-01 00:00:00", Some("0000-01-01T00:00:00.000000Z")),
            ("9999-12-31 23:59:59", Some("9999-12-30T22:00:00.999999Z")),
            ("", None),
            ("2026-01-31", None),
            ("2026-01-31T12:00:00", None),
            ("2026-01-31 12:00", None),
            ("2026-01-31 12:00:00Z", None),
            ("2026-01-31 12:00:00.5", None),
            (" 2026-01-31 12:00:00", None),
            ("2026-1-31 12:00:00", None),
            ("26-01-31 12:00:00", None),
            ("2026-02-29 12:00:00", None),
            ("2026-13-01 12:00:00", None),
            ("2026-00-01 12:00:00", None),
            ("2026-01-31 24:00:00", None),
            ("2026-01-31 12:60:00", None),
            ("2026-01-31 12:00:60", None),
            ("+026-01-31 12:00:00", None),
            ("2026-01-31 12:00:0ż", None),
            ("２026-01-31 12:00:", None),
            ("now", None),
        ] {
            assert_eq!(check_datetime(text).map(|ts| text_of(ts).to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn texts_have_a_length_in_characters() {
        assert!(check_text("a").is_some() && check_text(&"𝄞".repeat(TEXT_MAX_CHARS)).is_some());
        for wrong in ["", &"a".repeat(TEXT_MAX_CHARS + 1), "a\0b"] {
            assert!(check_text(wrong).is_none(), "{wrong:?}");
        }
        assert!(TEXT_RULE.contains(&TEXT_MAX_CHARS.to_string()));
    }
}
