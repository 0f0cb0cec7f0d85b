//! A description inferred from a CSV file, so that `import` then reads every row of the same file.
//!
//! The file is read once, by the reader of `import`, and each cell is offered to columns of every type (`Column::read_csv`):
//! a type is a column's if it takes all of its cells without losing anything, such as the zeros in front of a number. What is
//! kept of a column is bounded, whatever the file's size.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};

use csv::StringRecord;
use indexmap::IndexMap;
use thiserror::Error;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::column::Column;
use super::description::{ColumnDescription, header_key};
use super::kind::LENGTH_MAX;
use super::naming::Names;
use super::sketch::{ColumnSketch, Sketch};
use crate::db::records::{Malformed, Records, check_width, line_of};

/// The text is read so many bytes at a time.
const READ_BYTES: usize = 64 * 1024;
/// Most values of an enumeration.
const ENUM_MAX: usize = 12;
/// How many rows there are for each value of an enumeration, at least.
const ENUM_ROWS: u64 = 3;
/// Distinct values are counted up to here.
const DISTINCT_MAX: usize = 1000;
/// Greatest lengths of texts: the first one that leaves as much room again.
const LENGTHS: [u32; 8] = [50, 100, 200, 500, 1000, 2000, 5000, LENGTH_MAX];
/// Integers that are not above half of what 32 bits hold are 32 bits wide.
const INT32_MAX: u64 = 1 << 30;
/// Characters of a value that are shown.
const SHOWN_MAX: usize = 40;
/// A double holds every whole number of so many digits.
const EXACT_DIGITS: usize = 15;

/// Why nothing can be inferred.
#[derive(Debug, Error)]
pub enum InferError {
    /// The text is no CSV.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Columns cannot be told apart, each in a sentence.
    #[error("{}", .0.join("; "))]
    Header(Vec<String>),
    /// A value that no column takes.
    #[error("line {line}, column {column}: {rule}")]
    Value {
        /// Where the row begins, counted from 1.
        line: u64,
        /// The column's header.
        column: String,
        /// What the value must be.
        rule: &'static str,
    },
    /// There are no rows.
    #[error("there are no rows in it that show what the columns are; add some, or use `pycrudapi resource new`")]
    Empty,
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Read(#[from] std::io::Error),
}

/// Infers the description of a resource of this name; `source` is what the file is called in its comments.
///
/// # Errors
/// [`InferError`].
pub fn infer(name: &str, source: &str, mut input: impl Read) -> Result<Sketch, InferError> {
    let mut survey = Survey { names: Names::new(name), columns: None, rows: 0 };
    let mut records = Records::default();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let length = match input.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let mut each = |record: &StringRecord| survey.record(record);
        if length == 0 {
            records.finish(&mut each)?;
            break;
        }
        records.push(&chunk[..length], &mut each)?;
    }
    let Survey { columns: Some(columns), rows: 1.., .. } = &survey else { return Err(InferError::Empty) };
    let mut comments = vec![
        format!(
            "Inferred from {source}: {}. Types are those that every value fits; ranges are left open.",
            counted(survey.rows, "row")
        ),
        "Once this is right, `pycrudapi resource check` this file, start the service and import the rows.".to_owned(),
    ];
    if columns.iter().any(|column| column.is_key) {
        comments.push("The column uuid is the key of the rows, which every resource has.".to_owned());
    }
    let columns = columns.iter().filter(|column| !column.is_key).map(Found::describe).collect();
    Ok(Sketch { name: name.to_owned(), comments, columns })
}

/// What has been seen of a file.
struct Survey<'a> {
    names: Names<'a>,
    columns: Option<Vec<Found>>,
    rows: u64,
}

impl Survey<'_> {
    fn record(&mut self, record: &StringRecord) -> Result<(), InferError> {
        let Some(columns) = &mut self.columns else {
            let names = self.names.of(record).map_err(InferError::Header)?;
            self.columns = Some(record.iter().zip(names).map(|(header, name)| Found::new(header, name)).collect());
            return Ok(());
        };
        check_width(record, columns.len())?;
        self.rows += 1;
        for (column, cell) in columns.iter_mut().zip(record) {
            column.see(cell, line_of(record))?;
        }
        Ok(())
    }
}

/// What has been seen of a column.
struct Found {
    header: String,
    name: String,
    is_key: bool,
    /// Types that took every value so far, the most particular first.
    candidates: Vec<Candidate>,
    text: Column,
    time: Column,
    /// Cells with more in them than blanks, and the others; those without anything among them.
    values: u64,
    blank: u64,
    empty: u64,
    /// Whether every value is a date and time but for the offset.
    is_local_time: bool,
    /// How often each value is there, as long as they are few.
    counts: Option<IndexMap<String, u64>>,
    distinct: HashSet<u64>,
    longest: usize,
    /// The greatest distance of an integer from zero.
    magnitude: u64,
    /// Why it is a text, though it began as something else.
    misfit: Option<String>,
}

/// A type, and whether it would lose nothing of a value that it can read.
struct Candidate {
    r#type: &'static str,
    format: Option<&'static str>,
    /// What many of them are called.
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
            ("string", Some("date"), "dates", |_| true),
            ("string", Some("date-time"), "dates and times", |_| true),
            ("string", Some("uuid"), "uuids", |_| true),
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

/// A column of a type without a rule of its own.
fn column_of(r#type: &str, format: Option<&str>) -> Column {
    let description = ColumnDescription {
        r#type: r#type.to_owned(),
        format: format.map(str::to_owned),
        max_length: (r#type == "string" && format.is_none()).then_some(LENGTH_MAX),
        ..ColumnDescription::default()
    };
    Column::new(1, &description).expect("a type alone has no fault")
}

impl Found {
    fn new(header: &str, name: String) -> Self {
        Self {
            header: header.to_owned(),
            name,
            is_key: header_key(header) == "uuid",
            candidates: Candidate::all(),
            text: column_of("string", None),
            time: column_of("string", Some("date-time")),
            values: 0,
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

    fn see(&mut self, cell: &str, line: u64) -> Result<(), InferError> {
        let fault = |rule| Err(InferError::Value { line, column: self.header.clone(), rule });
        if self.is_key {
            return match Uuid::try_parse(cell) {
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
        self.candidates.retain(|candidate| (candidate.keeps)(value) && candidate.column.read_csv(value).is_some());
        if let (Some(called), None, 2..) = (before, self.candidates.first(), self.values) {
            let shown: String = value.chars().take(SHOWN_MAX).collect();
            self.misfit =
                Some(format!("a text because of {shown:?} on line {line}; the values before it are {called}"));
        }
        self.values += 1;
        if self.is_local_time {
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
        if self.header != self.name {
            column.csv.push(self.header.clone());
        }
        let mut comments = vec![self.summary()];
        match self.candidates.first().filter(|_| self.values > 0) {
            Some(candidate) => {
                candidate.r#type.clone_into(&mut column.r#type);
                let is_small = candidate.r#type == "integer" && self.magnitude <= INT32_MAX;
                column.format = if is_small { Some("int32") } else { candidate.format }.map(str::to_owned);
            }
            None => {
                comments.extend(self.misfit.clone());
                if self.values > 0 && self.is_local_time {
                    let hint = "dates and times without an offset from UTC: with Z behind each it can be format = \"date-time\"";
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

    /// What was found, in a sentence.
    fn summary(&self) -> String {
        if self.values == 0 {
            return format!("{}, without a value", counted(self.blank, "cell"));
        }
        let distinct = match self.distinct.len() {
            count if count > DISTINCT_MAX => format!("more than {DISTINCT_MAX} distinct"),
            count => format!("{count} distinct"),
        };
        let (values, longest) = (counted(self.values, "value"), counted(self.longest as u64, "character"));
        format!("{values}, {distinct}, {} empty; longest: {longest}", self.blank)
    }

    /// Its values, if they are few, come again and again, and can be those of an enumeration.
    fn enumeration(&self, column: &ColumnDescription) -> Option<Vec<toml::Value>> {
        let counts = self.counts.as_ref().filter(|counts| !self.is_local_time && counts.len() > 1)?;
        let is_few = counts.len() as u64 * ENUM_ROWS <= self.values && counts.values().all(|count| *count > 1);
        let values: Vec<toml::Value> = counts.keys().map(|value| toml::Value::from(value.as_str())).collect();
        let column = ColumnDescription { r#enum: Some(values.clone()), ..column.clone() };
        (is_few && column.kind().is_ok()).then_some(values)
    }
}

fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Whether a boolean is meant: ones and zeros are taken for numbers.
fn is_word(value: &str) -> bool {
    value.starts_with(|letter: char| letter.is_ascii_alphabetic())
}

/// Whether it is a whole number, written as one.
fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits.bytes().all(|byte| byte.is_ascii_digit()) && !has_leading_zero(digits)
}

/// Whether it is a number that a double does not change for another one that is written like it.
fn is_number(value: &str) -> bool {
    let number = value.strip_prefix('-').unwrap_or(value);
    let is_written_as_one = number.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let is_whole = number.bytes().all(|byte| byte.is_ascii_digit());
    is_written_as_one && !has_leading_zero(number) && !(is_whole && number.len() > EXACT_DIGITS)
}

/// Whether zeros stand in front of it, as in codes that only look like numbers.
fn has_leading_zero(number: &str) -> bool {
    number.len() > 1 && number.starts_with('0') && number.as_bytes()[1].is_ascii_digit()
}
