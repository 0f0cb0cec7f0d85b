//! Generated rows as CSV, in the format that export writes and import reads, for benchmarks and tests with many rows.
//!
//! The same seed and description yield the same bytes on every machine, and fewer rows are a prefix of more. Every row is
//! valid; uuids are version 7 and ascend. Only the current row is held in memory. The `generate` table of a column defines its
//! values; without it, values are drawn from what the rules allow.

use std::io::{self, Write};

use jiff::civil::date;
use jiff::{Span, Timestamp};
use uuid::{Builder, Uuid};

use super::column::Column;
use super::definition::Resource;
use super::kind::Kind;
use super::value::Value;

/// The first row's creation time, 2020-01-01 in Unix milliseconds; each row is one millisecond later than the previous one.
/// This is in the past, so rows that a server creates afterwards sort after all generated ones.
const FIRST_MS: u64 = 1_577_836_800_000;
/// The range used for numbers without a bound.
const RANGE: u64 = 1_000_000;
/// Maximum number of attempts to generate a text that matches a pattern.
const ATTEMPTS: usize = 1000;

/// Writes a header and that many rows.
///
/// # Errors
/// When the output cannot be written, or no text matching a column's pattern is found.
pub fn generate(resource: &Resource, mut output: impl Write, rows: u64, seed: u64) -> io::Result<()> {
    let names: Vec<&str> = resource.columns.iter().map(|column| column.name).collect();
    writeln!(output, "{}", names.join(","))?;
    let mut random = Random(seed);
    let mut line = Vec::new();
    for index in 0..rows {
        line.clear();
        Value::Uuid(key(FIRST_MS + index, &mut random)).write_csv(&mut line);
        for column in resource.fields() {
            line.push(b',');
            let text = text(resource, column, &mut random).ok_or_else(|| {
                let hint = "set generate.values or generate.templates";
                io::Error::other(format!(
                    "no valid value was found for column {}, which {}; {hint}",
                    column.name, column.csv_rule
                ))
            })?;
            column.read_csv(&text).unwrap_or(Value::Null).write_csv(&mut line);
        }
        line.push(b'\n');
        output.write_all(&line)?;
    }
    output.flush()
}

fn key(millis: u64, random: &mut Random) -> Uuid {
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&random.next().to_be_bytes());
    bits[8..].copy_from_slice(&random.next().to_be_bytes()[..2]);
    Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

/// A valid value as a cell.
fn text(resource: &Resource, column: &Column, random: &mut Random) -> Option<String> {
    let rule = &column.generate;
    if column.nullable && random.below(100) < u64::from(rule.null_percent) {
        return Some(String::new());
    }
    for _ in 0..ATTEMPTS {
        let text = draw(resource, column, random);
        if column.read_csv(&text).is_some_and(|value| !value.is_null()) {
            return Some(text);
        }
    }
    None
}

fn draw(resource: &Resource, column: &Column, random: &mut Random) -> String {
    let rule = &column.generate;
    if !rule.values.is_empty() {
        return match random.one_of(&rule.values) {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
    }
    if !rule.templates.is_empty() {
        return filled(random.one_of(&rule.templates).clone(), resource, random);
    }
    if let (Some(minimum), Some(maximum)) = (rule.minimum, rule.maximum) {
        let step = rule.step.unwrap_or(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of steps between two bounds"
        )]
        let steps = ((maximum - minimum) / step).max(0.0) as u64;
        #[expect(clippy::cast_precision_loss, reason = "steps are few")]
        let value = minimum + random.below(steps + 1) as f64 * step;
        // As many decimal places as the step has: a sum of doubles would show rounding errors.
        let places = step.to_string().split_once('.').map_or(0, |(_, fraction)| fraction.len());
        return format!("{value:.places$}");
    }
    match &column.kind {
        Kind::Boolean => (random.below(2) == 1).to_string(),
        Kind::Integer { values: Some(values), .. } => random.one_of(values).to_string(),
        Kind::Integer { minimum, maximum, .. } => {
            let least = if *minimum < 0 { (*minimum).max(-(RANGE as i64)) } else { *minimum };
            let greatest = (*maximum).min(least.saturating_add(RANGE as i64));
            (least + i64::try_from(random.below(least.abs_diff(greatest) + 1)).unwrap_or(0)).to_string()
        }
        Kind::Number { minimum, maximum } => {
            let least = minimum.unwrap_or(0.0);
            let width = maximum.map_or(1000.0, |maximum| (maximum - least).min(1000.0));
            #[expect(clippy::cast_precision_loss, reason = "below a million")]
            let share = random.below(RANGE + 1) as f64 / RANGE as f64;
            format!("{}", least + width * share)
        }
        Kind::Decimal { precision, scale, .. } => {
            let digits: String =
                (0..*precision).map(|_| char::from(b'0' + u8::try_from(random.below(10)).unwrap_or(0))).collect();
            let (whole, fraction) = digits.split_at(usize::from(precision - scale));
            format!("0{whole}.{fraction}0")
        }
        Kind::Text { min_length, max_length, .. } => {
            let most = (*max_length).min(*min_length + 24).max(1);
            let least = (*min_length).max(1);
            let length = u64::from(least) + random.below(u64::from(most - least.min(most)) + 1);
            let letter = |_| char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0));
            (0..length).map(letter).collect()
        }
        Kind::Enum(texts) => random.one_of(texts).clone(),
        Kind::Date => {
            let days = i64::try_from(random.below(20_000)).unwrap_or(0);
            date(1970, 1, 1).saturating_add(Span::new().days(days)).to_string()
        }
        Kind::DateTime => {
            let seconds = i64::try_from(random.below(1_600_000_000)).unwrap_or(0);
            Timestamp::from_second(seconds).map(|instant| instant.to_string()).unwrap_or_default()
        }
        Kind::Uuid => key(FIRST_MS + random.below(RANGE), random).to_string(),
    }
}

/// Fills the placeholders of a template with words, which may contain placeholders themselves.
fn filled(mut template: String, resource: &Resource, random: &mut Random) -> String {
    while let Some((before, rest)) = template.split_once('{') {
        let Some((name, after)) = rest.split_once('}') else { break };
        let words = resource.words.iter().find(|(known, _)| known == name);
        let word = words.filter(|(_, words)| !words.is_empty()).map_or("", |(_, words)| random.one_of(words).as_str());
        template = format!("{before}{word}{after}");
    }
    template
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Implemented here because the
/// output of a library's generator may change between releases.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound; bounds are small enough for the modulo bias not to matter.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len() as u64);
        &choices[usize::try_from(index).expect("the index is below a length")]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::csv::Rows;
    use super::super::registry::passengers;
    use super::*;
    use crate::csv::file::cells;
    use crate::csv::notes::UnknownColumns;

    fn generated(rows: u64, seed: u64) -> Vec<u8> {
        let mut csv = Vec::new();
        generate(passengers(), &mut csv, rows, seed).expect("memory can be written");
        csv
    }

    #[test]
    fn a_seed_decides_every_byte_and_fewer_rows_are_a_beginning_of_more() {
        assert_eq!(generated(1000, 7), generated(1000, 7));
        assert_ne!(generated(1000, 7), generated(1000, 8));
        assert!(generated(1000, 7).starts_with(&generated(10, 7)));
    }

    #[test]
    fn every_row_passes_the_importers_rules_and_keys_ascend() {
        let csv = generated(20_000, 42);
        let records = cells(&csv);
        let mut file =
            Rows::with_header(passengers(), &records[0], UnknownColumns::Refused).expect("import knows the header");
        let (mut last, mut rows, mut names) = (Uuid::nil(), 0, HashSet::new());
        for record in &records[1..] {
            let row = file.row(record).unwrap_or_else(|error| panic!("{error}: {record:?}")).expect("it is not empty");
            assert_eq!(row.uuid.get_version_num(), 7);
            assert!(row.uuid > last, "{} does not follow {last}", row.uuid);
            last = row.uuid;
            rows += 1;
            names.insert(row.values[2].to_string());
        }
        assert_eq!(rows, 20_000);
        assert!(names.len() > 15_000, "only {} different names", names.len());
    }
}
