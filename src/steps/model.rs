//! The fields of a step that a client sends, and the filter of a list. No I/O happens here.

use jiff::Timestamp;

use super::listing::STEPS;
use crate::http::problem::FieldError;
use crate::resource::column::Column;
use crate::resource::time::fault::TimeFault;
use crate::resource::time::{Unzoned, read_date_time};

/// The rule for a date and time.
const TIME_RULE: &str = "must be a date and time of the form YYYY-MM-DD hh:mm:ss, such as 2026-01-31 12:00:00, in UTC \
     unless it has an offset or a time zone";

/// The fields that a client sends: component, version, owner and status.
pub fn fields() -> &'static [Column] {
    &STEPS.columns[2..]
}

/// The field with this name.
pub fn field(name: &str) -> Option<&'static Column> {
    fields().iter().find(|column| column.name == name)
}

/// The validation error for a table constraint; constraints are named `steps_<column>`.
pub fn constraint_field(constraint: &str) -> Option<FieldError> {
    field(constraint.strip_prefix("steps_")?).map(Column::error)
}

/// The filter of a list of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFilter {
    /// Steps that began at this time or later.
    pub start: Timestamp,
    /// Steps that began at this time or earlier.
    pub end: Timestamp,
    /// Steps of this component.
    pub component: Option<String>,
    /// Steps of this owner.
    pub owner: Option<String>,
}

impl StepFilter {
    /// A time before the earliest one that can be written.
    pub const EARLIEST: Timestamp = Timestamp::constant(-62_167_219_200, 0);
    /// The latest end: a four-digit year exceeds it by at most a day.
    pub const LATEST: Timestamp = Timestamp::MAX;
}

/// The position of a step: steps are ordered by time and id, durations by component and version before these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPosition {
    /// The component.
    pub component: String,
    /// The version.
    pub version: String,
    /// The time.
    pub ts: Timestamp,
    /// The key, which breaks ties.
    pub id: i64,
}

impl StepPosition {
    /// The position before every step that began at this time or later: texts are not empty, and ids start at 1.
    pub fn before(ts: Timestamp) -> Self {
        Self { component: String::new(), version: String::new(), ts, id: 0 }
    }
}

/// Parses the lower bound of times; one before the earliest possible time matches every step.
///
/// # Errors
/// The rule, and why the text breaks it; a time after the latest possible one is an error, because it would match no step.
pub fn check_start(text: &str) -> Result<Timestamp, String> {
    match read_date_time(text, Unzoned::Utc) {
        Err(TimeFault::Early) => Ok(StepFilter::EARLIEST),
        read => read.map_err(|fault| fault.of(TIME_RULE)),
    }
}

/// Parses the upper bound of times; one after the latest possible time matches every step.
///
/// # Errors
/// As [`check_start`], with the bounds exchanged.
pub fn check_end(text: &str) -> Result<Timestamp, String> {
    match read_date_time(text, Unzoned::Utc) {
        Err(TimeFault::Late) => Ok(StepFilter::LATEST),
        read => read.map_err(|fault| fault.of(TIME_RULE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_out_of_range_matches_everything_or_is_rejected() {
        for (text, expected) in
            [("2026-01-31 12:00:00", "2026-01-31T12:00:00Z"), ("2026-01-31", "2026-01-31T00:00:00Z")]
        {
            assert_eq!(check_start(text).map(|ts| ts.to_string()).as_deref(), Ok(expected), "{text}");
            assert_eq!(check_end(text).map(|ts| ts.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for early in ["0000-01-01 00:00:00", "0001-01-01T00:00:00+01:00"] {
            assert_eq!(check_start(early), Ok(StepFilter::EARLIEST), "{early}");
            assert!(check_end(early).is_err_and(|detail| detail.contains("before the year 1")), "{early}");
        }
        for late in ["9999-12-31 23:59:59", "9999-12-30T21:00:01-01:00", "9999-12-30T22:00:00.9999995Z"] {
            assert_eq!(check_end(late), Ok(StepFilter::LATEST), "{late}");
            assert!(check_start(late).is_err_and(|detail| detail.contains("after 9999-12-30")), "{late}");
        }
        assert!(check_start("now").is_err_and(|detail| detail == TIME_RULE));
        assert!(check_end("now").is_err_and(|detail| detail == TIME_RULE));
    }

    #[test]
    fn texts_have_a_length_in_characters() {
        assert_eq!(
            fields().iter().map(|column| column.name).collect::<Vec<_>>(),
            ["component", "version", "owner", "status"]
        );
        for column in fields() {
            assert!(column.read_csv("a").is_some() && column.read_csv(&"𝄞".repeat(128)).is_some());
            for wrong in ["", &"a".repeat(129), "a\0b"] {
                assert!(column.read_csv(wrong).is_none(), "{wrong:?}");
            }
            assert_eq!(column.rule, "must be a text of 1 to 128 characters without U+0000");
        }
    }
}
