//! Infers a description from a CSV file, so that `import` accepts every row of that file.
//!
//! The file is read once, with the reader of `import`, and each cell is tried as a value of every type (`Column::read_cell`). A
//! column has the first type that accepts all of its cells without losing anything, such as leading zeros. The state kept per
//! column is bounded, whatever the file's size.

use std::collections::HashSet;
use std::io::Read;

use encoding_rs::Encoding;
use indexmap::IndexMap;
use thiserror::Error;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::column::Column;
use super::column::cell::{ReadState, is_null_word};
use super::csv::without_other_quotes;
use super::description::{ColumnDescription, header_key};
use super::kind::LENGTH_MAX;
use super::naming::Names;
use super::sketch::{ColumnSketch, Sketch};
use super::time::begins_as_iso;
use super::unnamed::{UNNAMED_RULE, UnnamedColumn};
use crate::csv::cells::{Cell, Cells};
use crate::csv::fault::{Fault, Location, Malformed};
use crate::csv::file;
use crate::csv::splitter::Sink;

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

/// Why no description can be inferred.
#[derive(Debug, Error)]
pub enum InferError {
    /// The text is not CSV.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Columns cannot be distinguished; one sentence each.
    #[error("{}", .0.join("; "))]
    Header(Vec<String>),
    /// A value that no column type accepts.
    #[error("line {line}, column {column}: {rule}")]
    Value {
        /// The line on which the row starts, counted from 1.
        line: u64,
        /// The column's header.
        column: String,
        /// What the value must be.
        rule: &'static str,
    },
    /// The file has no rows.
    #[error("it has no rows from which to infer the columns; add some, or use `pycrudapi resource new`")]
    Empty,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] std::io::Error),
}

/// Infers the description of a resource; `source` is the name of the file in its comments.
///
/// # Errors
/// [`InferError`].
pub fn infer(
    name: &str,
    source: &str,
    input: impl Read,
    encoding: Option<&'static Encoding>,
) -> Result<Sketch, InferError> {
    let mut survey = Survey { names: Names::new(name), columns: None, state: ReadState::default(), rows: 0 };
    file::read(input, encoding, &mut survey, |_, _| true)?;
    let Survey { columns: Some(columns), rows: 1.., .. } = &survey else { return Err(InferError::Empty) };
    let rows = counted(survey.rows, "row");
    let mut comments = vec![
        format!("Inferred from {source}: {rows}. Each type fits every value of its column; ranges are left open."),
        "When this is correct, run `pycrudapi resource check` on this file, start the service and import the rows."
            .to_owned(),
    ];
    if columns.iter().all(|column| column.header.parse::<f64>().is_ok()) {
        comments.push("The header consists of numbers. If it is a row, add a header to the file.".to_owned());
    }
    if columns.iter().any(|column| column.is_key) {
        comments.push("The column uuid is omitted, because every resource has this key.".to_owned());
    }
    let described = columns.iter().filter(|column| !column.is_key && column.unnamed.is_none());
    let columns = described.map(ObservedColumn::describe).collect();
    Ok(Sketch { name: name.to_owned(), comments, columns, ..Sketch::default() })
}

/// State of reading a file.
struct Survey<'a> {
    names: Names<'a>,
    columns: Option<Vec<ObservedColumn>>,
    state: ReadState,
    rows: u64,
}

impl Sink for Survey<'_> {
    type Error = InferError;

    fn fits(&self, _: &Cells) -> bool {
        true
    }

    fn record(&mut self, record: &Cells) -> Result<(), InferError> {
        let Some(columns) = &mut self.columns else {
            without_other_quotes(record).map_err(|fault| InferError::Header(vec![fault]))?;
            let names = self.names.of(record).map_err(InferError::Header)?;
            self.columns =
                Some(record.texts().zip(names).map(|(header, name)| ObservedColumn::new(header, name)).collect());
            return Ok(());
        };
        if record.texts().all(|text| text.trim().is_empty()) {
            return Ok(()); // import skips it, too
        }
        let (expected, found) = (columns.len(), record.count());
        if expected != found {
            let fault = Fault::Width { expected, found };
            return Err(Malformed { line: record.line(), location: Location::Record, fault }.into());
        }
        self.rows += 1;
        for (column, cell) in columns.iter_mut().zip(record.iter()) {
            column.observe(cell, record, &mut self.state)?;
        }
        Ok(())
    }
}

/// Observations about a column.
struct ObservedColumn {
    header: String,
    name: String,
    is_key: bool,
    /// Set for an unnamed column, which is omitted.
    unnamed: Option<UnnamedColumn>,
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
            ("number", None, "numbers", is_number),
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
    fn new(header: &str, name: String) -> Self {
        Self {
            header: header.trim().to_owned(),
            is_key: header_key(header) == "uuid",
            unnamed: name.is_empty().then(UnnamedColumn::default),
            name,
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
        }
    }

    fn observe(&mut self, written: Cell<'_>, record: &Cells, state: &mut ReadState) -> Result<(), InferError> {
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
            self.candidates.retain(|candidate| {
                (candidate.keeps)(&plain) && candidate.column.read_cell(written, separator, true, state).is_ok()
            });
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

    fn describe(&self) -> ColumnSketch {
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

/// A count with its noun: `1 row`, `2 rows`.
pub fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
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
