//! Why a text is no day and no instant, in words for whoever wrote it.

use jiff::civil;
use jiff::tz::Offset;
use thiserror::Error;

/// Most decimals of a second: PostgreSQL's own most, too.
pub const DECIMALS_MAX: usize = 9;

/// Why a text is no instant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimeFault {
    /// It has another form.
    #[error("its form is another")]
    Form,
    /// The calendar has no such day.
    #[error("there is no such day")]
    Day,
    /// Two days, in one order of its parts and in the other.
    #[error("it is {0} or {1}; write the one that is meant so")]
    Ambiguous(civil::Date, civil::Date),
    /// Nobody knows the century.
    #[error("its year has two digits; write all four, first, such as 2026-01-31")]
    ShortYear,
    /// The day is another one of the week.
    #[error("{0} is another day of the week")]
    Weekday(civil::Date),
    /// A number.
    #[error("it is a number; if it counts {what}, write {meant}")]
    Counted {
        /// What it would count.
        what: &'static str,
        /// What it would be then.
        meant: String,
    },
    /// A day was to be alone.
    #[error("it has a time of day, which would be lost; write {0} if the day is meant")]
    TimeOfDay(civil::Date),
    /// The name of an offset, of which several have the same.
    #[error(
        "{0} names no offset that is known everywhere; write it in digits, such as +01:00, or the time zone in brackets, such as [Europe/Madrid]"
    )]
    Abbreviation(String),
    /// No clock shows such a time.
    #[error("there is no such time of day; the last ones are 23:59:59 and 24:00:00, which is midnight")]
    Clock,
    /// A leap second.
    #[error(
        "second 60 would have to be altered, because leap seconds are not kept; write second 59 or the next minute"
    )]
    LeapSecond,
    /// More decimals than anybody could heed.
    #[error("it has more than {DECIMALS_MAX} decimals")]
    Decimals,
    /// Neither offset nor zone.
    #[error("it names no offset from UTC; add Z, or one such as +02:00")]
    NoOffset,
    /// A plus that was not percent-encoded.
    #[error("it has a blank where + or - belongs; in a URL a plus is a blank, so write %2B there")]
    Plus,
    /// An offset of more than a day.
    #[error("there is no such offset from UTC")]
    Offset,
    /// A zone that nobody knows.
    #[error("there is no time zone {0:?}")]
    Zone(String),
    /// Several zones.
    #[error("it names more than one time zone")]
    Zones,
    /// Clocks were put forward over it.
    #[error(
        "{local} does not exist in {zone}, where clocks went from {before} to {after}; write the offset that is meant"
    )]
    Skipped {
        /// The time of the clocks.
        local: civil::DateTime,
        /// Where they are.
        zone: String,
        /// The offset until then.
        before: Offset,
        /// The offset from then on.
        after: Offset,
    },
    /// Clocks were put back over it.
    #[error("{local} comes twice in {zone}; write the offset that is meant, {before} or {after}")]
    Repeated {
        /// The time of the clocks.
        local: civil::DateTime,
        /// Where they are.
        zone: String,
        /// The offset of the first time.
        before: Offset,
        /// The offset of the second time.
        after: Offset,
    },
    /// Offset and zone do not fit.
    #[error("its offset {offset} is not that of {zone}, which is {expected} then")]
    Disagreement {
        /// The offset that was written.
        offset: Offset,
        /// The zone that was written.
        zone: String,
        /// The zone's offset.
        expected: Offset,
    },
    /// An annotation that has to be heeded and cannot be.
    #[error("the annotation [!{0}] must be heeded and is not known; leave it out")]
    Critical(String),
    /// Before the first instant.
    #[error("it lies before the year 1 in UTC")]
    Early,
    /// Behind the last one.
    #[error("it lies behind 9999-12-30T22:00:00.999999Z, the last instant that is taken")]
    Late,
}

impl TimeFault {
    /// The rule that was broken, and how.
    pub fn of(&self, rule: &str) -> String {
        if *self == Self::Form { rule.to_owned() } else { format!("{rule}; {self}") }
    }
}
