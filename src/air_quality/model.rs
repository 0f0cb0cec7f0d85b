//! A reading, the rules of its fields, and the selection of a request. No I/O happens here.
//!
//! Times are UTC with microsecond resolution, as in PostgreSQL. Concentrations are µg/m³, but mg/m³ for CO; any finite number
//! is valid, because instruments drift below zero.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use regex::Regex;

use crate::http::format::Format;
use crate::resource::time::fault::TimeFault;
use crate::resource::time::{Unzoned, read_date_time};

/// The measured values, in the order of the CSV columns and JSON keys.
pub const MEASURES: [&str; 6] = ["so2", "no2", "co", "o3", "pm10", "pm2_5"];

/// The syntax of a station's name: letters of any script with their marks, digits, and separators of words.
static ENTITY: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"^[\p{L}\p{N}](?:[\p{L}\p{M}\p{N} _.:-]{0,98}[\p{L}\p{M}\p{N}_.:-])?$";
    Regex::new(pattern).expect("a regular expression")
});

/// Maximum number of stations in a request: enough for a city, and few enough for one line of a log.
pub const ENTITIES_MAX: usize = 50;

/// The rule for a station's name. Its characters need no quoting in CSV and JSON, are harmless in spreadsheets, and leave the
/// comma as a separator of names.
pub const ENTITY_RULE: &str =
    "must be 1 to 100 letters, digits, blanks and _ . : - beginning with a letter or digit and not ending in a blank";

/// The rule for a time.
pub const TIME_RULE: &str = "must be a time such as 2016-10-01 00:15:00.004, 2016-10-01T00:15:00Z or 2016-10-01, in UTC \
     unless it has an offset or a time zone";

/// The rule for a concentration.
pub const VALUE_RULE: &str = "must be a number, or empty";

/// One station's values at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<'a> {
    /// The station.
    pub entity: &'a str,
    /// The time of measurement.
    pub at: Timestamp,
    /// The values in the order of [`MEASURES`]; `None` if unknown.
    pub values: [Option<f64>; MEASURES.len()],
}

/// Which readings are requested, and in which format. Equivalent requests have equal selections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The format of the response.
    pub format: Format,
    /// Stations, sorted and without duplicates; empty for all.
    pub entities: Vec<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

impl Selection {
    /// The cache key; different selections have different keys.
    pub fn key(&self) -> String {
        let mut key = self.format.name().to_owned();
        for bound in [self.from, self.to] {
            key.push('|');
            if let Some(at) = bound {
                write_time(&mut key, at);
            }
        }
        key.push('|');
        key.push_str(&self.entities.join(","));
        key
    }
}

/// Validates the name of a station.
pub fn check_entity(text: &str) -> Option<&str> {
    ENTITY.is_match(text).then_some(text)
}

/// Parses a list of stations separated by commas; sorts it and removes duplicates.
pub fn check_entities(text: &str) -> Option<Vec<String>> {
    let mut entities = Vec::new();
    for name in text.split(',') {
        entities.push(check_entity(name.trim())?.to_owned());
    }
    entities.sort_unstable();
    entities.dedup();
    (entities.len() <= ENTITIES_MAX).then_some(entities)
}

/// Validates a concentration.
pub fn check_value(value: f64) -> Option<f64> {
    value.is_finite().then_some(value + 0.0) // adding zero makes -0 plain 0
}

/// Parses a time; UTC if it has neither offset nor zone.
///
/// # Errors
/// The rule, and why the text breaks it.
pub fn check_time(text: &str) -> Result<Timestamp, String> {
    let late = || format!("{TIME_RULE}; it is after 9999-12-29T23:59:59.999999Z, the latest time supported");
    match read_date_time(text, Unzoned::Utc) {
        Ok(at) if at.as_second() < LATEST_SECOND => Ok(at),
        Ok(_) | Err(TimeFault::Late) => Err(late()),
        Err(fault) => Err(fault.of(TIME_RULE)),
    }
}

/// Parses the inclusive lower bound; `None` for a time before all possible readings.
///
/// # Errors
/// As [`check_time`].
pub fn check_from(text: &str) -> Result<Option<Timestamp>, String> {
    match read_date_time(text, Unzoned::Utc) {
        Err(TimeFault::Early) => Ok(None),
        _ => check_time(text).map(Some),
    }
}

/// Parses the exclusive upper bound; `None` for a time after all possible readings.
///
/// # Errors
/// As [`check_time`].
pub fn check_to(text: &str) -> Result<Option<Timestamp>, String> {
    match read_date_time(text, Unzoned::Utc) {
        Err(TimeFault::Late) => Ok(None),
        Ok(at) if at.as_second() >= LATEST_SECOND => Ok(None),
        _ => check_time(text).map(Some),
    }
}

/// The upper bound of times in the table's constraint.
const LATEST_SECOND: i64 = 253_402_128_000; // 9999-12-30, because jiff reserves room for every offset

/// Times are written with milliseconds, or with microseconds if needed.
const MILLIS: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
const MICROS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Appends a time as RFC 3339 in UTC.
pub fn write_time(out: &mut String, at: Timestamp) {
    let printer = if at.subsec_microsecond() % 1000 == 0 { &MILLIS } else { &MICROS };
    printer.print_timestamp(&at, out).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Option<String> {
        let mut out = String::new();
        write_time(&mut out, check_time(text).ok()?);
        Some(out)
    }

    #[test]
    fn every_accepted_form_of_a_time_means_what_it_says() {
        for (text, expected) in [
            ("2016-10-01", "2016-10-01T00:00:00.000Z"),
            ("2016-10-01 00:15:00.004", "2016-10-01T00:15:00.004Z"),
            ("2016-10-01Z", "2016-10-01T00:00:00.000Z"),
            ("2016-10-01T00:15:00Z", "2016-10-01T00:15:00.000Z"),
            ("2016-10-01T00:15", "2016-10-01T00:15:00.000Z"),
            ("2016-10-01T00:15:00.1Z", "2016-10-01T00:15:00.100Z"),
            ("2016-10-01T00:15:00.123456", "2016-10-01T00:15:00.123456Z"),
            ("2016-10-01T00:15:00+02:00", "2016-09-30T22:15:00.000Z"),
            ("2016-10-01T00:15:00[Europe/Madrid]", "2016-09-30T22:15:00.000Z"),
            ("2016-10-01 24:00:00", "2016-10-02T00:00:00.000Z"),
            ("2016-10-01 00:15:00.1234567", "2016-10-01T00:15:00.123457Z"),
            ("2024-02-29 23:59:59.999-05:30", "2024-03-01T05:29:59.999Z"),
            ("0001-01-01", "0001-01-01T00:00:00.000Z"),
            ("9999-12-29 23:59:59.999999", "9999-12-29T23:59:59.999999Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "yesterday",
            "2016-13-01",
            "2023-02-29",
            "0000-01-01",
            "-000001-01-01",
            "0001-01-01 00:00:00+01:00",
            "9999-12-30",
            "99999-01-01",
            "2016-10-01 00:15:00.",
            "2016-10-01 00:15:00 02:00",
            "2016-10-01x00:15:00",
            "２０１６-10-01",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_bound_beyond_every_reading_is_none_or_is_rejected() {
        for early in ["0000-01-01", "0001-01-01T00:00:00+01:00"] {
            assert_eq!(check_from(early), Ok(None), "{early}");
            assert!(check_to(early).is_err_and(|detail| detail.contains("before the year 1")), "{early}");
        }
        for late in ["9999-12-31", "9999-12-30", "9999-12-29T23:30:00-01:00", "9999-12-29T23:59:59.9999996Z"] {
            assert_eq!(check_to(late), Ok(None), "{late}");
            let refused = check_from(late).expect_err(late);
            assert!(refused.contains("after 9999-12-29T23:59:59.999999Z"), "{late}: {refused}");
            assert_eq!(check_time(late), Err(refused));
        }
    }

    #[test]
    fn stations_are_validated_sorted_and_deduplicated() {
        assert_eq!(check_entities("b,a,b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            check_entities("Parque del Retiro, Jaén"),
            Some(vec!["Jaén".to_owned(), "Parque del Retiro".to_owned()])
        );
        for name in ["北京", "दिल्ली", "Львів-2", "1", "a:b", &"ñ".repeat(100)] {
            assert_eq!(check_entity(name), Some(name));
        }
        for wrong in
            ["", ",", "a,", "a,,b", "_a", "=1+1", "a\tb", "a\"b", "a\u{a0}b", "＝1", "-a", "@a", &"a".repeat(101)]
        {
            assert_eq!(check_entities(wrong), None, "{wrong}");
        }
        let many: Vec<String> = (0..=ENTITIES_MAX).map(|number| format!("s{number}")).collect();
        assert_eq!(check_entities(&many.join(",")), None);
        assert!(check_entities(&many[1..].join(",")).is_some());
    }

    proptest! {
        #[test]
        fn a_time_that_was_written_is_read_back_the_same(
            micros in -62_135_596_800_000_000..LATEST_SECOND * 1_000_000,
        ) {
            let at = Timestamp::from_microsecond(micros).expect("in range");
            let mut text = String::new();
            write_time(&mut text, at);
            prop_assert_eq!(check_time(&text), Ok(at));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in ".*") {
            let _ = (check_time(&text), check_entities(&text));
        }
    }
}
