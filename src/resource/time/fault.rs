//! Why a text is not a valid date or instant, as a message for its author.

use jiff::civil;
use jiff::tz::Offset;
use thiserror::Error;

/// Maximum number of decimals of a second.
pub const DECIMALS_MAX: usize = 9;

/// Why a text is not a valid date or instant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimeFault {
    /// Unknown form.
    #[error("it has an unknown form")]
    Form,
    /// The date does not exist.
    #[error("there is no such day")]
    Day,
    /// Two readings, day first and month first.
    #[error("it is {0} or {1}; write the intended one in this form")]
    Ambiguous(civil::Date, civil::Date),
    /// The century is unknown.
    #[error("its year has two digits; write four digits, year first, such as 2026-01-31")]
    ShortYear,
    /// The weekday does not match.
    #[error("{0} falls on another day of the week")]
    Weekday(civil::Date),
    /// A number.
    #[error("it is a number; if it counts {what}, write {value}")]
    Counted {
        /// The unit it would count.
        what: &'static str,
        /// The date or instant it would denote.
        value: String,
    },
    /// A date was expected without a time of day.
    #[error("it has a time of day or an offset from UTC, which would be lost; write {0} for the date alone")]
    TimeOfDay(civil::Date),
    /// An ambiguous abbreviation of an offset.
    #[error(
        "{0} is not a unique abbreviation of an offset; write the offset in digits, such as +01:00, or the time zone in \
        brackets, such as [Europe/Madrid]"
    )]
    Abbreviation(String),
    /// The time of day does not exist.
    #[error("there is no such time of day; the last ones are 23:59:59 and 24:00:00, which is midnight")]
    Clock,
    /// A leap second.
    #[error("second 60 is not supported, because leap seconds cannot be stored; write second 59 or the next minute")]
    LeapSecond,
    /// Too many decimals.
    #[error("it has more than {DECIMALS_MAX} decimals")]
    Decimals,
    /// It has neither offset nor zone.
    #[error("it has no offset from UTC; add Z or an offset such as +02:00")]
    NoOffset,
    /// A plus that was not percent-encoded.
    #[error("it has a blank instead of + or -; a plus sign in a URL means a blank, so write %2B there")]
    Plus,
    /// The offset is out of range.
    #[error("there is no such offset from UTC")]
    Offset,
    /// An unknown time zone.
    #[error("there is no time zone {0:?}")]
    Zone(String),
    /// More than one time zone.
    #[error("it has more than one time zone")]
    Zones,
    /// The local time was skipped when clocks were put forward.
    #[error("{local} does not exist in {zone}, where clocks went from {before} to {after}; write the intended offset")]
    Skipped {
        /// The local time.
        local: civil::DateTime,
        /// The time zone.
        zone: String,
        /// The offset before the change.
        before: Offset,
        /// The offset after the change.
        after: Offset,
    },
    /// The local time occurs twice because clocks were put back.
    #[error("{local} occurs twice in {zone}; write the intended offset, {before} or {after}")]
    Repeated {
        /// The local time.
        local: civil::DateTime,
        /// The time zone.
        zone: String,
        /// The offset of the first occurrence.
        before: Offset,
        /// The offset of the second occurrence.
        after: Offset,
    },
    /// Offset and zone disagree.
    #[error("its offset {offset} is not that of {zone}, which is {expected} then")]
    Disagreement {
        /// The offset in the text.
        offset: Offset,
        /// The zone in the text.
        zone: String,
        /// The zone's offset.
        expected: Offset,
    },
    /// A critical annotation that is not supported.
    #[error("the critical annotation [!{0}] is not supported; leave it out")]
    Critical(String),
    /// Before the first instant.
    #[error("it is before the year 1 in UTC")]
    Early,
    /// After the last instant.
    #[error("it is after 9999-12-30T22:00:00.999999Z, the latest instant supported")]
    Late,
}

impl TimeFault {
    /// The rule, followed by how it was broken.
    pub fn of(&self, rule: &str) -> String {
        if *self == Self::Form { rule.to_owned() } else { format!("{rule}; {self}") }
    }
}
