//! Days and instants as clients write them (RFC 3339).

use jiff::civil::{self, date};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

/// The earliest day and instant: PostgreSQL's own constraint on years that have four digits.
const FIRST_DAY: civil::Date = date(1, 1, 1);
/// The latest day.
const LAST_DAY: civil::Date = date(9999, 12, 31);

/// A day of RFC 3339.
pub fn read_date(text: &str) -> Option<civil::Date> {
    let is_full_date = text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(index, byte)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    let day: civil::Date = is_full_date.then(|| text.parse().ok()).flatten()?;
    (FIRST_DAY..=LAST_DAY).contains(&day).then_some(day)
}

/// An instant of RFC 3339; what is finer than a microsecond is rounded, because PostgreSQL keeps no more.
pub fn read_date_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // jiff takes more forms, such as a zone in brackets, which would have to be heeded.
    let offset = text.get(19..)?.trim_start_matches(|letter: char| letter == '.' || letter.is_ascii_digit());
    let is_offset = matches!(offset, "Z" | "z")
        || (offset.len() == 6 && matches!(offset.as_bytes()[0], b'+' | b'-') && offset.as_bytes()[3] == b':');
    read_date(text.get(..10)?)?;
    // jiff takes a leap second for the second before it.
    if !matches!(bytes[10], b'T' | b't' | b' ') || !is_offset || text.get(17..19)? == "60" {
        return None;
    }
    let instant: Timestamp = text.parse().ok()?;
    let round = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::HalfEven);
    let instant = instant.round(round).ok()?;
    // In UTC, too, the year has four digits.
    let year = instant.to_zoned(jiff::tz::TimeZone::UTC).year();
    (1..=9999).contains(&year).then_some(instant)
}
