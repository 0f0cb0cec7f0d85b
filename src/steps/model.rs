//! A step, how long it lasted, and the rules of its fields and of the filters. No I/O happens here.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::http::problem::FieldError;
use crate::resource::time::{TimeFault, Unzoned, read_date_time};

/// Longest text of a field, in characters: as long as a container image's tag may be (OCI distribution specification).
pub const TEXT_MAX_CHARS: usize = 128;

/// What every field of a step must be.
pub const TEXT_RULE: &str = "must be a text of 1 to 128 characters without U+0000";

/// What a date and time must look like.
const TIME_RULE: &str = "must be a date and time of the form YYYY-MM-DD hh:mm:ss, such as 2026-01-31 12:00:00, in UTC unless it \
     names an offset or a time zone";

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
    /// Before the earliest time that anybody can write.
    pub const EARLIEST: Timestamp = Timestamp::constant(-62_167_219_200, 0);
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

/// A time between which and another steps are asked for: what lies outside of all that can be kept is the earliest or the latest.
///
/// # Errors
/// What it must look like, and what is wrong with it.
pub fn check_time(text: &str) -> Result<Timestamp, String> {
    match read_date_time(text, Unzoned::Utc) {
        Err(TimeFault::Early) => Ok(Filter::EARLIEST),
        Err(TimeFault::Late) => Ok(Filter::LATEST),
        read => read.map_err(|fault| fault.of(TIME_RULE)),
    }
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
    fn a_time_that_nothing_can_have_is_the_earliest_or_the_latest() {
        for (text, expected) in [
            ("2026-01-31 12:00:00", "2026-01-31T12:00:00.000000Z"),
            ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
            ("0000-01-01 00:00:00", "0000-01-01T00:00:00.000000Z"),
            ("9999-12-31 23:59:59", "9999-12-30T22:00:00.999999Z"),
        ] {
            assert_eq!(check_time(text).map(|ts| text_of(ts).to_string()).as_deref(), Ok(expected), "{text}");
        }
        assert!(check_time("now").is_err_and(|detail| detail == TIME_RULE));
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
