//! Parses dates and timestamps, for every column, parameter and file: RFC 3339 with the annotations of RFC 9557, the shorter
//! forms of ISO 8601, and other forms that have one meaning (`day`).
//!
//! A time zone in brackets applies if there is no offset, and must agree with the offset if there is one. The time zone
//! database is compiled in, so that results do not depend on the machine. What cannot be honoured is rejected with a reason;
//! nothing is guessed or dropped.

mod day;
pub mod fault;

use std::borrow::Cow;
use std::sync::LazyLock;

use jiff::civil::{self, date};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use self::fault::{DECIMALS_MAX, TimeFault};

/// The earliest date and instant; the table's constraints also require years of four digits.
const FIRST_DAY: civil::Date = date(1, 1, 1);
/// The latest date.
const LAST_DAY: civil::Date = date(9999, 12, 31);
/// The first instant, in Unix seconds; the last one is jiff's own.
const FIRST_SECOND: i64 = -62_135_596_800;
/// Maximum number of characters of the client's text quoted in an error message.
const SHOWN_MAX_CHARS: usize = 50;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// How to handle a time without offset and zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unzoned {
    /// Reject it: stored values are never guessed.
    Refused,
    /// Assume UTC.
    Utc,
}

/// Parses a date; also accepts midnight in UTC or without an offset, as programs write dates stored as timestamps.
///
/// # Errors
/// Why it is invalid.
pub fn read_date(text: &str) -> Result<civil::Date, TimeFault> {
    let other = || day::counted(text).unwrap_or(TimeFault::Form);
    let (day, rest) = day::day(text).ok_or_else(other)?;
    let day = day?;
    if !rest.is_empty() {
        let (local, offset) = read_local(text.strip_suffix("[UTC]").unwrap_or(text))?;
        let is_utc = matches!(offset, ParsedOffset::Nothing | ParsedOffset::Zulu | ParsedOffset::Offset(Offset::UTC));
        if local != day.at(0, 0, 0, 0) || !is_utc {
            return Err(TimeFault::TimeOfDay(day));
        }
    }
    if (FIRST_DAY..=LAST_DAY).contains(&day) { Ok(day) } else { Err(TimeFault::Day) }
}

/// Whether a text starts with a date in ISO 8601 form, which is accepted without a note.
pub fn begins_as_iso(text: &str) -> bool {
    let mut rest = Scanner(text.as_bytes());
    rest.day().is_some()
}

/// Parses an instant; it is rounded to microseconds, PostgreSQL's resolution.
///
/// # Errors
/// Why it is invalid.
pub fn read_date_time(text: &str, unzoned: Unzoned) -> Result<Timestamp, TimeFault> {
    let (clock, zone) = match text.find('[') {
        Some(at) => (text[..at].trim_end_matches(' '), read_annotations(&text[at..])?),
        None => with_zone_name(text),
    };
    let (local, offset) = read_local(clock)?;
    let instant = |offset: Offset| {
        offset.to_timestamp(local).map_err(|_| if local.year() > 1 { TimeFault::Late } else { TimeFault::Early })
    };
    let at = match (offset, &zone) {
        (ParsedOffset::Zulu, _) => instant(Offset::UTC)?,
        (ParsedOffset::Offset(offset), None) => instant(offset)?,
        (ParsedOffset::Offset(offset), Some((name, zone))) => {
            let at = instant(offset)?;
            let expected = zone.to_offset(at);
            // Local mean time has offsets with seconds, which are usually written rounded to minutes.
            if expected != offset && expected.round(Unit::Minute).ok() != Some(offset) {
                return Err(TimeFault::Disagreement { offset, zone: name.clone(), expected });
            }
            at
        }
        (ParsedOffset::Nothing, Some((name, zone))) => instant(resolve(local, name, zone)?)?,
        (ParsedOffset::Nothing, None) if unzoned == Unzoned::Refused => return Err(TimeFault::NoOffset),
        (ParsedOffset::Nothing, None) => instant(Offset::UTC)?,
    };
    let round = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::HalfEven);
    let at = at.round(round).map_err(|_| TimeFault::Late)?;
    if at.as_second() < FIRST_SECOND { Err(TimeFault::Early) } else { Ok(at) }
}

/// Splits off the name of a time zone without brackets, as PostgreSQL accepts it: `2026-01-31 12:00 Europe/Madrid`.
fn with_zone_name(text: &str) -> (&str, Option<(String, TimeZone)>) {
    let named = text.rsplit_once(' ').filter(|(_, name)| name.contains('/'));
    let found = named.and_then(|(clock, name)| Some((clock, Some((name.to_owned(), zone(name)?)))));
    found.unwrap_or((text, None))
}

/// Moves the year of `Sun Mar 15 12:00:00 UTC 2026`, as C, Unix and Ruby write it, to the date.
fn year_last(text: &str) -> Option<String> {
    // Most texts begin with a digit.
    text.starts_with(|letter: char| letter.is_ascii_alphabetic()).then_some(())?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (year, rest) = words.split_last()?;
    let clock = rest.iter().position(|word| word.contains(':')).filter(|clock| (2..=3).contains(clock))?;
    let is_year = |word: &str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    (is_year(year) && !rest[..clock].iter().any(|word| is_year(word))).then(|| {
        let (date, time) = rest.split_at(clock);
        format!("{} {year} {}", date.join(" "), time.join(" "))
    })
}

/// The offset after the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParsedOffset {
    Nothing,
    /// UTC, with an unknown local offset (RFC 9557, section 2.2).
    Zulu,
    Offset(Offset),
}

fn read_local(text: &str) -> Result<(civil::DateTime, ParsedOffset), TimeFault> {
    // Browsers write such blanks before AM and PM.
    let plain: Cow<'_, str> = match text.is_ascii() {
        true => text.into(),
        false => text.replace(['\u{202f}', '\u{a0}'], " ").into(),
    };
    let plain = year_last(&plain).map_or(plain, Cow::Owned);
    let text = &*plain;
    let mut rest = Scanner(text.as_bytes());
    let mut marks = &b"Tt "[..];
    let day = match rest.day() {
        Some(day) => day,
        None => {
            let other = || day::counted(text).unwrap_or(TimeFault::Form);
            let (day, remaining) = day::day(text).ok_or_else(other)?;
            // A comma may follow a date with a month's name, and a word.
            let remaining = remaining.strip_prefix(',').unwrap_or(remaining);
            let joined = [" at ", " @ ", " um ", " à "].iter().find_map(|word| remaining.strip_prefix(word));
            rest =
                Scanner(joined.map_or(remaining, |clock| &remaining[remaining.len() - clock.len() - 1..]).as_bytes());
            marks = b"Tt :"; // SAS and web servers write 04Mar2025:02:00:00
            day
        }
    };
    if rest.0.is_empty() {
        return Ok((day?.at(0, 0, 0, 0), ParsedOffset::Nothing));
    }
    // XML Schema writes 2026-03-15Z and 2026-03-15+01:00.
    let is_midnight = matches!(rest.0, [b'Z' | b'z'] | [b'+', _, _, b':', _, _]);
    // 20260315120000
    let is_compact = text.len() >= 14 && text.bytes().take(14).all(|byte| byte.is_ascii_digit());
    if !is_midnight && !is_compact {
        rest.one_of(marks).ok_or(TimeFault::Form)?;
    }
    let (time, is_end) =
        if is_midnight { (civil::Time::midnight(), false) } else { rest.clock().ok_or(TimeFault::Form)?? };
    let offset = if rest.0.is_empty() {
        ParsedOffset::Nothing
    } else if rest.one_of(b"Zz").is_some() {
        ParsedOffset::Zulu
    } else if rest.0[0] == b' ' && Scanner(&rest.0[1..]).offset(1).is_some() {
        return Err(TimeFault::Plus);
    } else if [&b"UTC"[..], b"GMT", b"Z"].iter().any(|name| rest.0.trim_ascii_start().eq_ignore_ascii_case(name)) {
        rest.0 = b"";
        ParsedOffset::Zulu
    } else if let [b' ', name @ ..] = rest.0
        && (2..=5).contains(&name.len())
        && name.iter().all(u8::is_ascii_uppercase)
    {
        return Err(TimeFault::Abbreviation(String::from_utf8_lossy(name).into_owned()));
    } else {
        // JavaScript writes `GMT+0100 (Central European Standard Time)`.
        // `GMT+1` would be an hour west of Greenwich as a time zone of POSIX.
        if matches!(rest.0, [b' ', b'G', b'M', b'T', b'+' | b'-', b'0'..=b'9', b'0'..=b'9', ..]) {
            rest.0 = &rest.0[4..];
        }
        // A blank before the sign, as git, Go and Ruby write it.
        if matches!(rest.0, [b' ', b'+' | b'-', ..]) {
            rest.0 = &rest.0[1..];
        }
        let sign = if rest.one_of(b"+-").ok_or(TimeFault::Form)? == b'-' { -1 } else { 1 };
        let offset = rest.offset(sign).ok_or(TimeFault::Form)??;
        if is_name_of(offset, rest.0) {
            rest.0 = b"";
        }
        match offset {
            // `-00:00` is equivalent to Z (RFC 9557, section 2.2).
            Offset::UTC if sign < 0 => ParsedOffset::Zulu,
            offset => ParsedOffset::Offset(offset),
        }
    };
    if !rest.0.is_empty() {
        return Err(TimeFault::Form);
    }
    let day = if is_end { day?.tomorrow().map_err(|_| TimeFault::Late)? } else { day? };
    Ok((day.to_datetime(time), offset))
}

/// Whether a text after an offset only names it: a comment, as in e-mail (RFC 5322, section 3.3), or an abbreviation, as Go
/// writes it. Abbreviations have at least three letters (POSIX): `BC`, as PostgreSQL writes it, and `PM` change the time.
fn is_name_of(offset: Offset, text: &[u8]) -> bool {
    match text {
        [b' ', b'(', .., b')'] => true,
        [b' ', name @ ..] if [&b"UTC"[..], b"GMT", b"Z"].contains(&name) => offset == Offset::UTC,
        [b' ', name @ ..] => (3..=5).contains(&name.len()) && name.iter().all(u8::is_ascii_uppercase),
        _ => false,
    }
}

/// Parses `[Europe/Madrid][u-ca=gregory]`; a zone contains no equals sign.
fn read_annotations(mut text: &str) -> Result<Option<(String, TimeZone)>, TimeFault> {
    let mut found = None;
    while !text.is_empty() {
        let (inner, rest) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or(TimeFault::Form)?;
        text = rest;
        let (critical, name) = inner.strip_prefix('!').map_or((false, inner), |name| (true, name));
        let shown = || name.chars().take(SHOWN_MAX_CHARS).collect::<String>();
        if name.contains('=') {
            // All dates here are in the Gregorian calendar.
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
    let mut rest = Scanner(name.as_bytes());
    if let Some(sign) = rest.one_of(b"+-") {
        let offset = rest.offset(if sign == b'-' { -1 } else { 1 })?.ok()?;
        return rest.0.is_empty().then(|| TimeZone::fixed(offset));
    }
    // "Factory" is the placeholder of an unconfigured system.
    ZONES.get(name).ok().filter(|zone| !zone.is_unknown() && !name.eq_ignore_ascii_case("Factory"))
}

/// The offset of the zone at a local time.
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

/// The text that has not been read yet. `None` means another form; an error means the right form of something that does not
/// exist.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn one_of(&mut self, marks: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| marks.contains(first))?;
        self.0 = rest;
        Some(*first)
    }

    /// A number of this many digits.
    fn number(&mut self, digits: usize) -> Option<i32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0')))
    }

    /// A number below 100.
    fn pair(&mut self) -> Option<i8> {
        self.number(2).and_then(|number| i8::try_from(number).ok())
    }

    /// A date, with or without hyphens.
    fn day(&mut self) -> Option<Result<civil::Date, TimeFault>> {
        let year = i16::try_from(self.number(4)?).ok()?;
        let hyphens = self.one_of(b"-").is_some();
        let month = self.pair()?;
        if hyphens {
            self.one_of(b"-")?;
        }
        let day = self.pair()?;
        // A longer number is not a date, unless it is followed by the digits of a time of day.
        let following = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (following == 0 || (following == 6 && !hyphens))
            .then(|| civil::Date::new(year, month, day).map_err(|_| TimeFault::Day))
    }

    /// A time of day, with or without colons, and whether it is the end of the day.
    fn clock(&mut self) -> Option<Result<(civil::Time, bool), TimeFault>> {
        let mut hour = match self.0 {
            [_, b':', ..] => i8::try_from(self.number(1)?).ok()?,
            _ => self.pair()?,
        };
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
        if let Some(half) = self.half() {
            // 0:30 PM could be noon or midnight.
            if !(1..=12).contains(&hour) && (hour, half) != (0, 0) {
                return Some(Err(TimeFault::Clock));
            }
            hour = hour % 12 + half;
        }
        if second == 60 {
            return Some(Err(TimeFault::LeapSecond));
        }
        let is_end = (hour, minute, second, nanosecond) == (24, 0, 0, 0);
        let time = civil::Time::new(if is_end { 0 } else { hour }, minute, second, nanosecond);
        Some(time.map(|time| (time, is_end)).map_err(|_| TimeFault::Clock))
    }

    /// The hours that `AM` or `PM` adds.
    fn half(&mut self) -> Option<i8> {
        const HALVES: [(&[u8], i8); 6] =
            [(b"am", 0), (b"pm", 12), (b"a.m.", 0), (b"p.m.", 12), (b"a. m.", 0), (b"p. m.", 12)];
        let mark = self.0.strip_prefix(b" ").unwrap_or(self.0);
        let is_next = |half: &[u8]| mark.get(..half.len()).is_some_and(|next| next.eq_ignore_ascii_case(half));
        let (half, hours) = HALVES.into_iter().find(|(half, _)| is_next(half))?;
        self.0 = &mark[half.len()..];
        Some(hours)
    }

    /// An offset after its sign: hours, and optionally minutes and seconds, with or without colons.
    fn offset(&mut self, sign: i32) -> Option<Result<Offset, TimeFault>> {
        let hours = match self.0 {
            [_] | [_, b':', ..] => self.number(1)?,
            _ => i32::from(self.pair()?),
        };
        let mut parts = [hours, 0, 0];
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
