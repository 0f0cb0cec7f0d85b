//! Validates rows by the rules of a single one and writes them in `COPY`'s binary form.

use std::convert::Infallible;

use bytes::Bytes;
use csv::StringRecord;
use uuid::Uuid;

use super::super::csv::{Header, put};
use super::super::definition::Resource;
use super::super::json;
use super::super::row::Record;
use super::faults::Faults;
use super::split::{Array, Lines, Rows, Splitter, Stuck};
use crate::db::copy::{BinaryRows, TableError};
use crate::db::records::{Malformed, check_width, line_of};
use crate::http::body::{CSV, NDJSON};
use crate::http::problem::FieldError;

/// The rows of one body, as far as it has arrived.
#[derive(Debug)]
pub struct Loader {
    splitter: Splitter,
    validator: RowValidator,
}

impl Loader {
    /// For a body of this media type; `keys` asks to remember the keys of the rows.
    pub fn new(resource: &'static Resource, media_type: &str, keys: bool) -> Self {
        let splitter = match media_type {
            CSV => Splitter::Table(Box::default()),
            NDJSON => Splitter::Lines(Lines::default()),
            _ => Splitter::Array(Array::default()),
        };
        let validator = RowValidator {
            resource,
            is_array: matches!(splitter, Splitter::Array(_)),
            header: None,
            count: 0,
            keys: keys.then(Vec::new),
            faults: Faults::default(),
            is_stuck: false,
            binary: BinaryRows::default(),
        };
        Self { splitter, validator }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.validator.is_stuck
            && let Err(stuck) = self.splitter.push(bytes, &mut self.validator)
        {
            self.validator.stuck(stuck);
        }
    }

    /// The body has ended.
    pub fn end(&mut self) {
        if self.validator.is_stuck {
            return;
        }
        if let Err(stuck) = self.splitter.finish(&mut self.validator) {
            self.validator.stuck(stuck);
        } else if matches!(self.splitter, Splitter::Table(_))
            && self.validator.header.is_none()
            && !self.validator.is_stuck
        {
            self.validator
                .stuck(Stuck::new(1, format!("must be a header: {}", self.validator.resource.expected_header)));
        }
    }

    /// Whether there is a chunk to be sent.
    pub fn is_full(&self) -> bool {
        self.validator.binary.is_full()
    }

    /// Whether every row so far can be stored.
    pub fn is_good(&self) -> bool {
        self.validator.faults.is_empty()
    }

    /// The rows since the last chunk.
    pub fn take(&mut self) -> Bytes {
        self.validator.binary.take()
    }

    /// The rows since the last chunk and the end of the copy, how many rows there are, and their keys if they are wanted.
    pub fn finish(&mut self) -> (Bytes, u64, Vec<Uuid>) {
        let validator = &mut self.validator;
        (std::mem::take(&mut validator.binary).finish(), validator.count, validator.keys.take().unwrap_or_default())
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.validator.keys.as_ref().map_or(0, Vec::len)
    }

    /// What is wrong with the rows.
    pub fn into_faults(self) -> Faults {
        self.validator.faults
    }
}

#[derive(Debug)]
struct RowValidator {
    resource: &'static Resource,
    is_array: bool,
    /// Of CSV, once it was read.
    header: Option<(Header, usize)>,
    /// Rows so far, good or bad.
    count: u64,
    keys: Option<Vec<Uuid>>,
    faults: Faults,
    /// Nothing more can be made of the body.
    is_stuck: bool,
    binary: BinaryRows,
}

impl RowValidator {
    fn stuck(&mut self, stuck: Stuck) {
        self.faults.stuck(stuck);
        self.is_stuck = true;
    }

    fn row(&mut self, line: u64, row: Result<Record<'_>, Vec<FieldError>>) {
        let index = self.count;
        self.count += 1;
        match row {
            // After a fault nothing is stored, so the rest is only validated.
            Ok(record) if self.faults.is_empty() => {
                let Ok(()) = self.binary.put(|row| {
                    put(self.resource, &record, row);
                    Ok::<_, Infallible>(())
                });
                self.keys.iter_mut().for_each(|keys| keys.push(record.uuid));
            }
            Ok(_) => {}
            Err(errors) => self.faults.row(line, self.is_array.then_some(index), errors),
        }
    }

    fn header(&mut self, record: &StringRecord) {
        let line = line_of(record);
        match Header::read(self.resource, record) {
            Ok(header) if header.has_uuid() => {
                self.is_stuck = true;
                self.faults.row(
                    line,
                    None,
                    vec![FieldError::new("uuid", "is made by the server; leave the column out")],
                );
            }
            Ok(header) => self.header = Some((header, record.len())),
            Err(error) => {
                self.is_stuck = true;
                self.faults.row(line, None, whole(error.to_string()));
            }
        }
    }
}

/// The row as a whole is at fault.
fn whole(detail: String) -> Vec<FieldError> {
    vec![FieldError { pointer: String::new(), detail: detail.into() }]
}

impl Rows for RowValidator {
    fn json(&mut self, line: u64, text: &[u8]) {
        let row = json::read_row(self.resource, text);
        self.row(line, row.map(|values| Record { uuid: Uuid::now_v7(), values }));
    }

    fn record(&mut self, record: &StringRecord) {
        if self.is_stuck {
            return;
        }
        let Some((header, cells)) = self.header.take() else { return self.header(record) };
        let row = check_width(record, cells).map_err(TableError::from).and_then(|()| header.row(record));
        let row = row.map_err(|error| match error {
            TableError::Value { column, rule, .. } => vec![FieldError::new(&column, rule)],
            TableError::Malformed(Malformed { fault, .. }) => whole(fault.to_string()),
            other => whole(other.to_string()),
        });
        self.row(line_of(record), row);
        self.header = Some((header, cells));
    }
}
