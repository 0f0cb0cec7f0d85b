//! The observations about a column of the file, and the type that fits them.

use std::collections::HashSet;

use indexmap::IndexMap;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::super::column::Column;
use super::super::column::cell::{DecimalMark, ReadState, is_null_word};
use super::super::description::{ColumnDescription, header_key};
use super::super::kind::LENGTH_MAX;
use super::super::sketch::ColumnSketch;
use super::super::time::begins_as_iso;
use super::super::unnamed::{UNNAMED_RULE, UnnamedColumn};
use super::{InferError, counted};
use crate::csv::cells::{Cell, Cells};

/// Maximum number of values of an enumeration.
const ENUM_MAX: usize = 12;
/// Minimum average number of rows per value of an enumeration.
const ENUM_ROWS: u64 = 3;
/// Distinct values are counted up to this number.
const DISTINCT_MAX: usize = 1000;
/// Candidates for the maximum length of a text: the first that is at least twice the longest value.
const LENGTHS: [u32; 8] = [50, 100, 200, 500, 1000, 2000, 5000, LENGTH_MAX];
/// Integers up to half of the 32-bit range become `int32`.
const INT32_MAX: u64 = 1 << 30;
/// Maximum number of characters of a value shown.
const SHOWN_MAX: usize = 40;
/// A double represents every integer of this many digits exactly.
const EXACT_DIGITS: usize = 15;
/// The candidate whose values have a decimal mark.
const NUMBERS: &str = "numbers";

/// Observations about a column.
pub(super) struct ObservedColumn {
    pub(super) header: String,
    name: String,
    pub(super) is_key: bool,
    /// Set for an unnamed column, which is omitted.
    pub(super) unnamed: Option<UnnamedColumn>,
    /// Types that have accepted every value so far, most specific first.
    candidates: Vec<Candidate>,
    text: Column,
    time: Column,
    /// Numbers of non-blank cells, of those that denote a missing value, of blank cells, and of those that are empty.
    values: u64,
    nulls: u64,
    blank: u64,
    empty: u64,
    /// Whether every value is a date and time without an offset.
    is_local_time: bool,
    /// How often each value occurs, while there are few distinct values.
    counts: Option<IndexMap<String, u64>>,
    distinct: HashSet<u64>,
    longest: usize,
    /// The greatest absolute value of an integer.
    magnitude: u64,
    /// Why it is a text although its first values were not.
    misfit: Option<String>,
    /// How its numbers have been read so far, and the line that determined the decimal mark.
    state: ReadState,
    pub(super) mark_line: u64,
    /// The column whose decimal mark decided what an ambiguous number means.
    pub(super) lender: Option<usize>,
}

/// A type, and a check that it loses nothing of a value it can read: `2024-001` is a valid ordinal date, but more often a
/// serial number.
struct Candidate {
    r#type: &'static str,
    format: Option<&'static str>,
    /// Plural noun for messages.
    called: &'static str,
    column: Column,
    keeps: fn(&str) -> bool,
}

impl Candidate {
    fn all() -> Vec<Self> {
        [
            ("boolean", None, "booleans", is_word as fn(&str) -> bool),
            ("integer", Some("int64"), "integers", is_integer),
            ("number", None, NUMBERS, is_number),
            ("string", Some("date"), "dates", begins_as_iso),
            ("string", Some("date-time"), "dates and times", begins_as_iso),
            ("string", Some("uuid"), "uuids", |value| value.contains('-')),
        ]
        .map(|(r#type, format, called, keeps)| Self {
            r#type,
            format,
            called,
            column: column_of(r#type, format),
            keeps,
        })
        .into()
    }
}

/// A column of a type without further rules.
fn column_of(r#type: &str, format: Option<&str>) -> Column {
    let description = ColumnDescription {
        r#type: r#type.to_owned(),
        format: format.map(str::to_owned),
        max_length: (r#type == "string" && format.is_none()).then_some(LENGTH_MAX),
        ..ColumnDescription::default()
    };
    Column::new(1, &description).expect("a type alone has no fault")
}

impl ObservedColumn {
    pub(super) fn new(header: &str, name: String) -> Self {
        let name_is_missing = name.is_empty();
        Self {
            header: header.trim().to_owned(),
            name,
            is_key: header_key(header) == "uuid",
            unnamed: name_is_missing.then(UnnamedColumn::default),
            candidates: Candidate::all(),
            text: column_of("string", None),
            time: column_of("string", Some("date-time")),
            values: 0,
            nulls: 0,
            blank: 0,
            empty: 0,
            is_local_time: true,
            counts: Some(IndexMap::new()),
            distinct: HashSet::new(),
            longest: 0,
            magnitude: 0,
            misfit: None,
            state: ReadState::default(),
            mark_line: 0,
            lender: None,
        }
    }

    /// Whether every value is a number.
    pub(super) fn is_number(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.called == NUMBERS)
    }

    /// The decimal mark of its numbers, if they determined one.
    pub(super) fn decimal_mark(&self) -> Option<DecimalMark> {
        self.state.decimal_mark().filter(|_| self.is_number() && self.lender.is_none())
    }

    /// Makes it a text, because its numbers have another decimal mark than those of other columns.
    pub(super) fn refuse_numbers(&mut self) {
        self.candidates.retain(|candidate| candidate.called != NUMBERS);
        self.misfit = Some("a text because its decimal mark differs from that of other columns of numbers".to_owned());
    }

    /// Adds the cell of the next row; `lent` is the decimal mark of another column, for numbers that are ambiguous without it.
    pub(super) fn observe(
        &mut self,
        written: Cell<'_>,
        record: &Cells,
        lent: Option<(usize, DecimalMark)>,
    ) -> Result<(), InferError> {
        let (cell, line, separator) = (written.text, record.line(), record.separator());
        let fault = |rule| Err(InferError::Value { line, column: self.header.clone(), rule });
        if let Some(unnamed) = &mut self.unnamed {
            return if unnamed.take(cell) { Ok(()) } else { fault(UNNAMED_RULE) };
        }
        if self.is_key {
            return match Uuid::try_parse(cell.trim()) {
                Ok(_) => Ok(()),
                Err(_) => fault("must be a uuid, because a column of this name is the key; rename it if it is not"),
            };
        }
        if self.text.read_csv(cell).is_none() {
            return fault(self.text.csv_rule);
        }
        self.empty += u64::from(cell.is_empty());
        self.longest = self.longest.max(cell.chars().count());
        let value = cell.trim();
        if value.is_empty() {
            self.blank += 1;
            return Ok(());
        }
        let before = self.candidates.first().map(|candidate| candidate.called);
        let known_before = self.values - self.nulls;
        let is_null = is_null_word(value);
        if is_null {
            self.nulls += 1;
        } else {
            // A comma may be the decimal mark.
            let plain = value.replace(',', ".");
            let Self { candidates, state, lender, .. } = self;
            let is_marked = state.decimal_mark().is_some();
            candidates.retain(|candidate| {
                let reads = |state: &mut ReadState| candidate.column.read_cell(written, separator, true, state).is_ok();
                if !(candidate.keeps)(&plain) || reads(state) {
                    return (candidate.keeps)(&plain);
                }
                let Some((holder, mark)) = lent.filter(|_| candidate.called == NUMBERS && !is_marked) else {
                    return false;
                };
                *state = ReadState::with_mark(mark);
                *lender = Some(holder);
                reads(state)
            });
            if !is_marked && state.decimal_mark().is_some() {
                self.mark_line = line;
            }
        }
        if let (Some(called), None, 2..) = (before, self.candidates.first(), known_before) {
            let shown: String = value.chars().take(SHOWN_MAX).collect();
            self.misfit =
                Some(format!("a text because of {shown:?} on line {line}; the values before it are {called}"));
        }
        self.values += 1;
        if self.is_local_time && !is_null {
            self.is_local_time = self.time.read_csv(&format!("{value}Z")).is_some();
        }
        if let Ok(number) = value.parse::<i64>() {
            self.magnitude = self.magnitude.max(number.unsigned_abs());
        }
        if self.distinct.len() <= DISTINCT_MAX {
            self.distinct.insert(xxh3_64(value.as_bytes()));
        }
        if let Some(counts) = &mut self.counts {
            if let Some(count) = counts.get_mut(value) {
                *count += 1;
            } else if counts.len() < ENUM_MAX {
                counts.insert(value.to_owned(), 1);
            } else {
                self.counts = None;
            }
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> ColumnSketch {
        let mut column = ColumnDescription {
            name: self.name.clone(),
            r#type: "string".to_owned(),
            nullable: self.blank > 0,
            ..ColumnDescription::default()
        };
        let is_known = self.values > self.nulls;
        if self.header != self.name {
            column.csv.push(self.header.clone());
        }
        let mut comments = vec![self.summary()];
        match self.candidates.iter().find(|candidate| is_known && !self.is_one_sided(candidate)) {
            Some(candidate) => {
                column.nullable |= self.nulls > 0;
                candidate.r#type.clone_into(&mut column.r#type);
                let is_small = candidate.r#type == "integer" && self.magnitude <= INT32_MAX;
                column.format = if is_small { Some("int32") } else { candidate.format }.map(str::to_owned);
            }
            None => {
                comments.extend(self.misfit.clone());
                if is_known && self.is_local_time {
                    let hint =
                        "dates and times without an offset from UTC: append Z to each to use format = \"date-time\"";
                    comments.push(hint.to_owned());
                }
                match self.enumeration(&column) {
                    Some(values) => column.r#enum = Some(values),
                    None => {
                        column.nullable = self.empty > 0;
                        let room = LENGTHS.iter().find(|length| **length as usize >= self.longest * 2);
                        column.max_length = Some(*room.unwrap_or(&LENGTH_MAX));
                    }
                }
            }
        }
        ColumnSketch { comments, column }
    }

    /// Whether a boolean has been seen in only one spelling that may mean something else: f for female, NO for Norway.
    fn is_one_sided(&self, candidate: &Candidate) -> bool {
        let is_one = |counts: &IndexMap<String, u64>| {
            let words: HashSet<String> =
                counts.keys().filter(|value| !is_null_word(value)).map(|value| value.to_lowercase()).collect();
            words.len() < 2 && !words.contains("true") && !words.contains("false")
        };
        candidate.r#type == "boolean" && self.counts.as_ref().is_some_and(is_one)
    }

    /// A summary of the column in a sentence.
    fn summary(&self) -> String {
        if self.values == 0 {
            return format!("{}, all without a value", counted(self.blank, "cell"));
        }
        let distinct = match self.distinct.len() {
            count if count > DISTINCT_MAX => format!("more than {DISTINCT_MAX} distinct"),
            count => format!("{count} distinct"),
        };
        let (values, longest) = (counted(self.values, "value"), counted(self.longest as u64, "character"));
        format!("{values}, {distinct}, {} empty; longest: {longest}", self.blank)
    }

    /// Its values, if they are few, repeat, and are valid values of an enumeration.
    fn enumeration(&self, column: &ColumnDescription) -> Option<Vec<toml::Value>> {
        let counts = self.counts.as_ref().filter(|counts| !self.is_local_time && counts.len() > 1)?;
        let is_few = counts.len() as u64 * ENUM_ROWS <= self.values && counts.values().all(|count| *count > 1);
        let values: Vec<toml::Value> = counts.keys().map(|value| toml::Value::from(value.as_str())).collect();
        let column = ColumnDescription { r#enum: Some(values.clone()), ..column.clone() };
        (is_few && column.kind().is_ok()).then_some(values)
    }
}

/// Whether it may be a boolean; ones and zeros are treated as numbers.
fn is_word(value: &str) -> bool {
    value.starts_with(|letter: char| letter.is_ascii_alphabetic())
}

/// Whether it is an integer in canonical notation.
fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits.bytes().all(|byte| byte.is_ascii_digit()) && !has_leading_zero(digits)
}

/// Whether it is a number that survives conversion to a double.
fn is_number(value: &str) -> bool {
    let number = value.strip_prefix('-').unwrap_or(value);
    let is_written_as_one =
        number.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)) && !number.starts_with('+');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, ""));
    let digits = mantissa.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    // 12E4 is more likely a code than a number.
    let is_code = number.contains('E') && !mantissa.contains('.') && !exponent.starts_with(['+', '-']);
    is_written_as_one && !has_leading_zero(number) && !is_code && digits <= EXACT_DIGITS
}

/// Whether it has leading zeros, as codes that look like numbers do.
fn has_leading_zero(number: &str) -> bool {
    number.len() > 1 && number.starts_with('0') && number.as_bytes()[1].is_ascii_digit()
}
