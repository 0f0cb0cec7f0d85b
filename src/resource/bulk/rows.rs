//! Validates rows by the rules of a single one and writes them in `COPY`'s binary form.

use bytes::Bytes;
use encoding_rs::Encoding;
use uuid::Uuid;

use super::super::csv::{self, put};
use super::super::definition::Resource;
use super::super::json;
use super::super::row::Record;
use super::faults::Faults;
use super::split::{Array, Lines, Rows, Splitter, Stuck};
use crate::csv::cells::Cells;
use crate::csv::fault::Malformed;
use crate::csv::notes::{Notes, UnknownColumns};
use crate::csv::records::Records;
use crate::csv::signature::{Foreign, SignatureCheck};
use crate::csv::splitter::Sink;
use crate::db::copy::{BinaryRows, TableError};
use crate::http::body::{CSV, NDJSON};
use crate::http::json::fault::Position;
use crate::http::json::without_bom;
use crate::http::problem::FieldError;

/// How the rows of a body are written.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// One of those that are taken.
    pub media_type: &'static str,
    /// The encoding of CSV, if it is named.
    pub charset: Option<&'static Encoding>,
    /// What becomes of columns and members that the resource does not have.
    pub unknown: UnknownColumns,
}

/// The rows of one body, as far as it has arrived.
#[derive(Debug)]
pub struct Loader {
    splitter: Splitter,
    /// Of JSON, until its first bytes have told that it is that; CSV's reader looks at them itself.
    opening: Option<SignatureCheck>,
    is_ended: bool,
    validator: RowValidator,
}

impl Loader {
    /// For a body of this form; `keys` asks to remember the keys of the rows.
    pub fn new(resource: &'static Resource, form: &Form, keys: bool) -> Self {
        let splitter = match form.media_type {
            CSV => Splitter::Table(Box::new(Records::new(form.charset))),
            NDJSON => Splitter::Lines(Lines::default()),
            _ => Splitter::Array(Array::default()),
        };
        let validator = RowValidator {
            resource,
            unknown: form.unknown,
            is_array: matches!(splitter, Splitter::Array(_)),
            rows: None,
            count: 0,
            keys: keys.then(Vec::new),
            between: None,
            notes: Notes::default(),
            faults: Faults::default(),
            is_stuck: false,
            binary: BinaryRows::default(),
        };
        let opening = (!matches!(splitter, Splitter::Table(_))).then(|| SignatureCheck::new(true));
        Self { splitter, opening, is_ended: false, validator }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(opening) = &mut self.opening else { return self.split(bytes) };
        match opening.push(bytes) {
            Ok(begun) if begun.is_empty() => {} // nothing tells yet
            begun => {
                self.opening = None;
                self.begin(begun.as_deref());
            }
        }
    }

    /// Takes the first bytes, of which none belongs to what follows.
    fn begin(&mut self, begun: Result<&[u8], &Foreign>) {
        match begun {
            Ok(begun) => self.split(without_bom(begun)),
            Err(foreign) => self.validator.stuck(Stuck::new(1, foreign.to_string())),
        }
    }

    fn split(&mut self, bytes: &[u8]) {
        if !self.validator.is_stuck
            && let Err(stuck) = self.splitter.push(bytes, &mut self.validator)
        {
            self.validator.stuck(stuck);
        }
    }

    /// The body has ended.
    pub fn end(&mut self) {
        // Whoever reads on for further faults may come to the end once more.
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        if let Some(mut opening) = self.opening.take() {
            self.begin(opening.finish().as_deref());
        }
        if self.validator.is_stuck {
            return;
        }
        if let Err(stuck) = self.splitter.finish(&mut self.validator) {
            self.validator.stuck(stuck);
        } else if matches!(self.splitter, Splitter::Table(_))
            && self.validator.rows.is_none()
            && !self.validator.is_stuck
        {
            self.validator
                .stuck(Stuck::new(1, format!("must be a header: {}", self.validator.resource.expected_header)));
        } else if matches!(self.splitter, Splitter::Lines(_)) && self.validator.count == 0 {
            self.validator.stuck(Stuck::new(1, "must be a JSON object"));
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

    /// The least and the greatest key of the rows so far.
    pub fn keys_between(&self) -> Option<(Uuid, Uuid)> {
        self.validator.between
    }

    /// What was taken otherwise than it was written, in sentences.
    pub fn notes(&self) -> Vec<String> {
        match (&self.splitter, &self.validator.rows) {
            (Splitter::Table(records), Some(rows)) => rows.notes().sentences(Some(records)),
            _ => self.validator.notes.sentences(None),
        }
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
    unknown: UnknownColumns,
    is_array: bool,
    /// Of CSV, once its header was read.
    rows: Option<csv::Rows>,
    /// Rows so far, good or bad.
    count: u64,
    keys: Option<Vec<Uuid>>,
    /// The least and the greatest key.
    between: Option<(Uuid, Uuid)>,
    /// What was left out of rows of JSON.
    notes: Notes,
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
                self.binary.put(|row| put(self.resource, &record, row));
                self.keys.iter_mut().for_each(|keys| keys.push(record.uuid));
                let (least, greatest) = self.between.unwrap_or((record.uuid, record.uuid));
                self.between = Some((least.min(record.uuid), greatest.max(record.uuid)));
            }
            Ok(_) => {}
            Err(errors) => self.faults.row(line, self.is_array.then_some(index), errors),
        }
    }

    fn header(&mut self, record: &Cells) {
        let line = record.line();
        match csv::Rows::behind(self.resource, record, self.unknown) {
            Ok(rows) if rows.have_uuid() => {
                self.is_stuck = true;
                let error = FieldError::new("uuid", "is made by the server; leave the column out");
                self.faults.row(line, None, vec![error]);
            }
            Ok(rows) => self.rows = Some(rows),
            Err(error) => {
                self.is_stuck = true;
                self.faults.row(line, None, faults_of(error));
            }
        }
    }
}

/// What is wrong in a row whose line is told beside it; without a field the row as a whole is at fault.
fn faults_of(error: TableError) -> Vec<FieldError> {
    let detail = match error {
        TableError::Value { column, rule, .. } => return vec![FieldError::new(&column, rule)],
        TableError::Header { fault, expected, .. } => format!("{fault}; the header must be {expected}"),
        TableError::Malformed(Malformed { fault, .. }) => fault.to_string(),
        other => other.to_string(),
    };
    vec![FieldError { pointer: String::new(), detail: detail.into() }]
}

impl Rows for RowValidator {
    fn json(&mut self, begin: Position, text: &[u8]) {
        let left_out = (self.unknown == UnknownColumns::Ignored).then_some(&mut self.notes);
        let row = json::read_row(self.resource, (begin, text), left_out);
        self.row(begin.line, row.map(|values| Record { uuid: Uuid::now_v7(), values }));
    }
}

impl Sink for RowValidator {
    type Error = Stuck;

    fn fits(&self, header: &Cells) -> bool {
        csv::Rows::behind(self.resource, header, self.unknown).is_ok()
    }

    fn record(&mut self, record: &Cells) -> Result<(), Stuck> {
        if self.is_stuck {
            return Ok(());
        }
        let Some(mut rows) = self.rows.take() else {
            self.header(record);
            return Ok(());
        };
        if let Some(row) = rows.row(record).map_err(faults_of).transpose() {
            self.row(record.line(), row);
        }
        self.rows = Some(rows);
        Ok(())
    }
}
