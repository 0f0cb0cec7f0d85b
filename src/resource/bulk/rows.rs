//! Validates rows by the same rules as a single row and writes them in `COPY`'s binary format.

use bytes::Bytes;
use encoding_rs::Encoding;
use uuid::Uuid;

use super::super::csv::{self, put};
use super::super::definition::Resource;
use super::super::json;
use super::super::row::Record;
use super::faults::Faults;
use super::split::{Array, Lines, RowSink, SplitError, Splitter};
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

/// The format of the rows of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyFormat {
    /// One of the accepted media types.
    pub media_type: &'static str,
    /// The encoding of CSV, if the request specifies one.
    pub charset: Option<&'static Encoding>,
    /// How unknown columns and members are handled.
    pub unknown: UnknownColumns,
}

/// The rows of one body received so far.
#[derive(Debug)]
pub struct Loader {
    splitter: Splitter,
    /// Inspects the first bytes of a JSON body; CSV's reader does this itself.
    opening: Option<SignatureCheck>,
    is_ended: bool,
    validator: RowValidator,
}

impl Loader {
    /// Creates a loader for a body of this format; `keys` requests that the keys of the rows be collected.
    pub fn new(resource: &'static Resource, body_format: &BodyFormat, keys: bool) -> Self {
        let splitter = match body_format.media_type {
            CSV => Splitter::Csv(Box::new(Records::new(body_format.charset))),
            NDJSON => Splitter::Lines(Lines::default()),
            _ => Splitter::Array(Array::default()),
        };
        let validator = RowValidator {
            resource,
            unknown: body_format.unknown,
            is_array: matches!(splitter, Splitter::Array(_)),
            rows: None,
            count: 0,
            keys: keys.then(Vec::new),
            between: None,
            notes: Notes::default(),
            faults: Faults::default(),
            has_failed: false,
            binary: BinaryRows::default(),
        };
        let opening = (!matches!(splitter, Splitter::Csv(_))).then(|| SignatureCheck::new(true));
        Self { splitter, opening, is_ended: false, validator }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(opening) = &mut self.opening else { return self.split(bytes) };
        match opening.push(bytes) {
            Ok(begun) if begun.is_empty() => {} // undecided so far
            begun => {
                self.opening = None;
                self.begin(begun.as_deref());
            }
        }
    }

    /// Handles the first bytes of the body.
    fn begin(&mut self, begun: Result<&[u8], &Foreign>) {
        match begun {
            Ok(begun) => self.split(without_bom(begun)),
            Err(foreign) => self.validator.fail(SplitError::new(1, foreign.to_string())),
        }
    }

    fn split(&mut self, bytes: &[u8]) {
        if !self.validator.has_failed
            && let Err(error) = self.splitter.push(bytes, &mut self.validator)
        {
            self.validator.fail(error);
        }
    }

    /// Handles the end of the body.
    pub fn end(&mut self) {
        // This is called again when reading continues for further errors.
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        if let Some(mut opening) = self.opening.take() {
            self.begin(opening.finish().as_deref());
        }
        if self.validator.has_failed {
            return;
        }
        if let Err(error) = self.splitter.finish(&mut self.validator) {
            self.validator.fail(error);
        } else if matches!(self.splitter, Splitter::Csv(_))
            && self.validator.rows.is_none()
            && !self.validator.has_failed
        {
            self.validator
                .fail(SplitError::new(1, format!("must be a header: {}", self.validator.resource.expected_header)));
        } else if matches!(self.splitter, Splitter::Lines(_)) && self.validator.count == 0 {
            self.validator.fail(SplitError::new(1, "must be a JSON object"));
        }
    }

    /// Whether a chunk is ready to be sent.
    pub fn is_full(&self) -> bool {
        self.validator.binary.is_full()
    }

    /// Whether every row so far is valid.
    pub fn is_valid(&self) -> bool {
        self.validator.faults.is_empty()
    }

    /// The rows since the last chunk.
    pub fn take(&mut self) -> Bytes {
        self.validator.binary.take()
    }

    /// The rows since the last chunk and the end of the copy, the number of rows, and their keys if they were requested.
    pub fn finish(&mut self) -> (Bytes, u64, Vec<Uuid>) {
        let validator = &mut self.validator;
        (std::mem::take(&mut validator.binary).finish(), validator.count, validator.keys.take().unwrap_or_default())
    }

    /// The smallest and largest key of the rows so far.
    pub fn keys_between(&self) -> Option<(Uuid, Uuid)> {
        self.validator.between
    }

    /// Notes on converted values, as sentences.
    pub fn notes(&self) -> Vec<String> {
        match (&self.splitter, &self.validator.rows) {
            (Splitter::Csv(records), Some(rows)) => rows.notes().sentences(Some(records)),
            _ => self.validator.notes.sentences(None),
        }
    }

    /// The number of keys collected.
    pub fn keys(&self) -> usize {
        self.validator.keys.as_ref().map_or(0, Vec::len)
    }

    /// The errors of the rows.
    pub fn into_faults(self) -> Faults {
        self.validator.faults
    }
}

#[derive(Debug)]
struct RowValidator {
    resource: &'static Resource,
    unknown: UnknownColumns,
    is_array: bool,
    /// CSV rows, once the header has been read.
    rows: Option<csv::Rows>,
    /// Number of rows so far, valid or not.
    count: u64,
    keys: Option<Vec<Uuid>>,
    /// The smallest and largest key.
    between: Option<(Uuid, Uuid)>,
    /// Members ignored in JSON rows.
    notes: Notes,
    faults: Faults,
    /// The rest of the body cannot be split.
    has_failed: bool,
    binary: BinaryRows,
}

impl RowValidator {
    fn fail(&mut self, error: SplitError) {
        self.faults.split_error(error);
        self.has_failed = true;
    }

    fn row(&mut self, line: u64, row: Result<Record<'_>, Vec<FieldError>>) {
        let index = self.count;
        self.count += 1;
        match row {
            // After an error nothing is stored, so the rest is only validated.
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
        match csv::Rows::with_header(self.resource, record, self.unknown) {
            Ok(rows) if rows.have_uuid() => {
                self.has_failed = true;
                let error = FieldError::new("uuid", "is made by the server; leave the column out");
                self.faults.row(line, None, vec![error]);
            }
            Ok(rows) => self.rows = Some(rows),
            Err(error) => {
                self.has_failed = true;
                self.faults.row(line, None, faults_of(error));
            }
        }
    }
}

/// The errors of a row whose line is reported separately; an error without a field concerns the whole row.
fn faults_of(error: TableError) -> Vec<FieldError> {
    let detail = match error {
        TableError::Value { column, rule, .. } => return vec![FieldError::new(&column, rule)],
        TableError::Header { fault, expected, .. } => format!("{fault}; the header must be {expected}"),
        TableError::Malformed(Malformed { fault, .. }) => fault.to_string(),
        other => other.to_string(),
    };
    vec![FieldError { pointer: String::new(), detail: detail.into() }]
}

impl RowSink for RowValidator {
    fn json(&mut self, begin: Position, text: &[u8]) {
        let left_out = (self.unknown == UnknownColumns::Ignored).then_some(&mut self.notes);
        let row = json::read_row(self.resource, (begin, text), left_out);
        self.row(begin.line, row.map(|values| Record { uuid: Uuid::now_v7(), values }));
    }
}

impl Sink for RowValidator {
    type Error = SplitError;

    fn fits(&self, header: &Cells) -> bool {
        csv::Rows::with_header(self.resource, header, self.unknown).is_ok()
    }

    fn record(&mut self, record: &Cells) -> Result<(), SplitError> {
        if self.has_failed {
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
