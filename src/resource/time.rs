//! Days and instants as clients write them, for every column, parameter and file: RFC 3339 with what RFC 9557 puts in brackets,
//! and the shorter forms of ISO 8601.
//!
//! A time zone in brackets decides where no offset stands, and must agree with one that does. Zones come out of the program, so
//! that every machine agrees on them. What cannot be honoured is refused with what is wrong; nothing is guessed or left out.

use std::sync::LazyLock;

use jiff::civil::{self, date};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use thiserror::Error;

/// The earliest day and instant: PostgreSQL's own constraint on years that have four digits.
const FIRST_DAY: civil::Date = date(1, 1, 1);
/// The latest day.
const LAST_DAY: civil::Date = date(9999, 12, 31);
/// The first instant, in seconds of Unix; jiff has none behind the last one.
const FIRST_SECOND: i64 = -62_135_596_800;
/// Most decimals of a second: PostgreSQL's own most, too.
const DECIMALS_MAX: usize = 9;
/// How much of a client's text a complaint repeats.
const SHOWN_MAX_CHARS: usize = 50;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// What a time without offset and zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unzoned {
    /// Refused: what is kept is not to be guessed.
    Refused,
    /// In UTC.
    Utc,
}

/// Why a text is no instant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TimeFault {
    /// It has another form.
    #[error("its form is another")]
    Form,
    /// The calendar has no such day.
    #[error("there is no such day")]
    Day,
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

/// A day of RFC 3339.
pub fn read_date(text: &str) -> Option<civil::Date> {
    let mut rest = Rest(text.as_bytes());
    let day = rest.day(true).filter(|_| rest.0.is_empty())?.ok()?;
    (FIRST_DAY..=LAST_DAY).contains(&day).then_some(day)
}

/// An instant; what is finer than a microsecond is rounded, because PostgreSQL keeps no more.
///
/// # Errors
/// What is wrong with it.
pub fn read_date_time(text: &str, unzoned: Unzoned) -> Result<Timestamp, TimeFault> {
    let (clock, annotations) = text.split_at(text.find('[').unwrap_or(text.len()));
    let (local, offset) = read_local(clock)?;
    let zone = read_annotations(annotations)?;
    let instant = |offset: Offset| {
        offset.to_timestamp(local).map_err(|_| if local.year() > 1 { TimeFault::Late } else { TimeFault::Early })
    };
    let at = match (offset, &zone) {
        (Written::Zulu, _) => instant(Offset::UTC)?,
        (Written::Offset(offset), None) => instant(offset)?,
        (Written::Offset(offset), Some((name, zone))) => {
            let at = instant(offset)?;
            let expected = zone.to_offset(at);
            // Offsets of the time before zones have seconds, which nobody writes.
            if expected != offset && expected.round(Unit::Minute).ok() != Some(offset) {
                return Err(TimeFault::Disagreement { offset, zone: name.clone(), expected });
            }
            at
        }
        (Written::Nothing, Some((name, zone))) => instant(resolve(local, name, zone)?)?,
        (Written::Nothing, None) if unzoned == Unzoned::Refused => return Err(TimeFault::NoOffset),
        (Written::Nothing, None) => instant(Offset::UTC)?,
    };
    let round = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::HalfEven);
    let at = at.round(round).map_err(|_| TimeFault::Late)?;
    if at.as_second() < FIRST_SECOND { Err(TimeFault::Early) } else { Ok(at) }
}

/// What stands behind the time of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Nothing,
    /// UTC, wherever the clock is (RFC 9557, section 2.2).
    Zulu,
    Offset(Offset),
}

fn read_local(text: &str) -> Result<(civil::DateTime, Written), TimeFault> {
    let mut rest = Rest(text.as_bytes());
    let day = rest.day(false).ok_or(TimeFault::Form)?;
    if rest.0.is_empty() {
        return Ok((day?.at(0, 0, 0, 0), Written::Nothing));
    }
    rest.one_of(b"Tt ").ok_or(TimeFault::Form)?;
    let (time, is_end) = rest.clock().ok_or(TimeFault::Form)??;
    let offset = if rest.0.is_empty() {
        Written::Nothing
    } else if rest.one_of(b"Zz").is_some() {
        Written::Zulu
    } else if rest.0[0] == b' ' && Rest(&rest.0[1..]).offset(1).is_some() {
        return Err(TimeFault::Plus);
    } else if rest.0 == b" UTC" {
        rest.0 = b"";
        Written::Zulu
    } else {
        // A blank in front of the sign, as git, Go and Ruby write it.
        if matches!(rest.0, [b' ', b'+' | b'-', ..]) {
            rest.0 = &rest.0[1..];
        }
        let sign = if rest.one_of(b"+-").ok_or(TimeFault::Form)? == b'-' { -1 } else { 1 };
        match rest.offset(sign).ok_or(TimeFault::Form)?? {
            // `-00:00` is Z (RFC 9557, section 2.2).
            Offset::UTC if sign < 0 => Written::Zulu,
            offset => Written::Offset(offset),
        }
    };
    if !rest.0.is_empty() {
        return Err(TimeFault::Form);
    }
    let day = if is_end { day?.tomorrow().map_err(|_| TimeFault::Late)? } else { day? };
    Ok((day.to_datetime(time), offset))
}

/// Reads `[Europe/Madrid][u-ca=gregory]`; a zone has no equals sign.
fn read_annotations(mut text: &str) -> Result<Option<(String, TimeZone)>, TimeFault> {
    let mut found = None;
    while !text.is_empty() {
        let (inner, rest) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or(TimeFault::Form)?;
        text = rest;
        let (critical, name) = inner.strip_prefix('!').map_or((false, inner), |name| (true, name));
        let shown = || name.chars().take(SHOWN_MAX_CHARS).collect::<String>();
        if name.contains('=') {
            // These calendars are the one that everything here is written in.
            if critical && !matches!(name, "u-ca=iso8601" | "u-ca=gregory") {
                return Err(TimeFault::Critical(shown()));
            }
        } else if found.is_some() {
            return Err(TimeFault::Zones);
        } else {
            found = Some((shown(), zone(name).ok_or_else(|| TimeFault::Zone(shown()))?));
        }
    }
    Ok(found)
}

fn zone(name: &str) -> Option<TimeZone> {
    let mut rest = Rest(name.as_bytes());
    if let Some(sign) = rest.one_of(b"+-") {
        let offset = rest.offset(if sign == b'-' { -1 } else { 1 })?.ok()?;
        return rest.0.is_empty().then(|| TimeZone::fixed(offset));
    }
    // "Factory" is what a computer has until somebody chooses a zone.
    ZONES.get(name).ok().filter(|zone| !zone.is_unknown() && !name.eq_ignore_ascii_case("Factory"))
}

/// The offset that clocks have in the zone when they show this time.
fn resolve(local: civil::DateTime, name: &str, zone: &TimeZone) -> Result<Offset, TimeFault> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => Ok(offset),
        AmbiguousOffset::Gap { before, after } => {
            Err(TimeFault::Skipped { local, zone: name.to_owned(), before, after })
        }
        AmbiguousOffset::Fold { before, after } => {
            Err(TimeFault::Repeated { local, zone: name.to_owned(), before, after })
        }
    }
}

/// What has not been read yet. `None` is another form, an error the right form of what does not exist.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn one_of(&mut self, marks: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| marks.contains(first))?;
        self.0 = rest;
        Some(*first)
    }

    /// A number of so many digits.
    fn number(&mut self, digits: usize) -> Option<i32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0')))
    }

    /// A number below 100.
    fn pair(&mut self) -> Option<i8> {
        self.number(2).and_then(|number| i8::try_from(number).ok())
    }

    /// A day, with hyphens or, unless they must be there, without.
    fn day(&mut self, hyphens: bool) -> Option<Result<civil::Date, TimeFault>> {
        let year = i16::try_from(self.number(4)?).ok()?;
        let hyphens = self.one_of(b"-").is_some() || hyphens;
        let month = self.pair()?;
        if hyphens {
            self.one_of(b"-")?;
        }
        Some(civil::Date::new(year, month, self.pair()?).map_err(|_| TimeFault::Day))
    }

    /// A time of day, with colons or without, and whether it is the end of the day.
    fn clock(&mut self) -> Option<Result<(civil::Time, bool), TimeFault>> {
        let hour = self.pair()?;
        let colons = self.one_of(b":").is_some();
        let minute = self.pair()?;
        let has_second =
            if colons { self.one_of(b":").is_some() } else { self.0.first().is_some_and(u8::is_ascii_digit) };
        let (mut second, mut nanosecond) = (0, 0);
        if has_second {
            second = self.pair()?;
            if self.one_of(b".,").is_some() {
                let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits > DECIMALS_MAX {
                    return Some(Err(TimeFault::Decimals));
                }
                let power = 10_i32.pow(u32::try_from(DECIMALS_MAX - digits).ok()?);
                nanosecond = self.number(digits).filter(|_| digits > 0)? * power;
            }
        }
        if second == 60 {
            return Some(Err(TimeFault::LeapSecond));
        }
        let is_end = (hour, minute, second, nanosecond) == (24, 0, 0, 0);
        let time = civil::Time::new(if is_end { 0 } else { hour }, minute, second, nanosecond);
        Some(time.map(|time| (time, is_end)).map_err(|_| TimeFault::Clock))
    }

    /// An offset behind its sign: hours, and minutes and seconds where there are any, with colons or without.
    fn offset(&mut self, sign: i32) -> Option<Result<Offset, TimeFault>> {
        let mut parts = [i32::from(self.pair()?), 0, 0];
        for part in &mut parts[1..] {
            if self.one_of(b":").is_some() || self.0.first().is_some_and(u8::is_ascii_digit) {
                *part = i32::from(self.pair()?);
            }
        }
        let [hours, minutes, seconds] = parts;
        let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60 + seconds)).ok();
        Some(offset.filter(|_| minutes < 60 && seconds < 60 && hours < 24).ok_or(TimeFault::Offset))
    }
}

#[cfg(test)]
mod tests;
