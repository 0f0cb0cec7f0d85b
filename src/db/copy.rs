//! CSV into a table and out of it, through `COPY`: streaming, all or nothing, for every resource alike.
//!
//! A resource says what its columns are and how a row becomes binary values ([`Table`]); reading, streaming, progress and
//! the transaction are here. Memory is bounded whatever the file's size, and a bad row ends the import before anything
//! is kept.

use std::borrow::Cow;
use std::io::Read;
use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use encoding_rs::Encoding;
use futures_util::{SinkExt, TryStreamExt};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::analyze::analyze;
use super::error::is_about_statement;
use super::seed;
use crate::csv::cells::Cells;
use crate::csv::fault::Malformed;
use crate::csv::file;
use crate::csv::notes::{Notes, UnknownColumns};
use crate::csv::splitter::Sink;

/// Encoded rows are handed over in chunks of about this size.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks that may wait while PostgreSQL takes the one before.
const CHUNKS_AHEAD: usize = 2;

/// Signature, flags and extension length that open a binary `COPY` (PostgreSQL documentation, "COPY", "Binary Format").
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const BINARY_TRAILER: i16 = -1;

/// A resource's table as CSV: what `import`, `export` and the seed need to know about it.
pub trait Table: Copy + Send + Sync + 'static {
    /// A header row that has been understood: where each column stands in the file.
    type Header: Send;

    /// The table's name, under which the seed is remembered too.
    fn table_name(self) -> &'static str;

    /// `copy … from stdin (format binary)`, with the columns that [`Table::put`] writes.
    fn copy_in(self) -> &'static str;

    /// `copy (select …) to stdout (format csv, header true)`, in the form that import reads.
    fn copy_out(self) -> &'static str;

    /// A statement that belongs into the transaction of a copy, behind it.
    fn behind_copy(self) -> Option<&'static str> {
        None
    }

    /// Understands a header row.
    ///
    /// # Errors
    /// When a column is unknown, a duplicate or missing.
    fn read_header(self, record: &Cells, unknown: UnknownColumns) -> Result<Self::Header, TableError>;

    /// Judges a record and writes the values of its row, if there is any in it, in the order of the copy's columns.
    ///
    /// # Errors
    /// The first value that breaks its column's rule.
    fn put(self, header: &mut Self::Header, record: &Cells, rows: &mut BinaryRows) -> Result<(), TableError>;

    /// What was taken otherwise than it was written.
    fn notes(header: &Self::Header) -> &Notes;
}

/// Why a CSV file was refused.
#[derive(Debug, Error)]
pub enum TableError {
    /// The header does not name the table's columns.
    #[error("line {line}: {fault}; the header must be {expected}")]
    Header {
        /// Where it is, counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: String,
        /// The columns, as a person would write them.
        expected: &'static str,
    },
    /// A value breaks its column's rule.
    #[error("line {line}, column {column}: {rule}")]
    Value {
        /// Where the row begins, counted from 1.
        line: u64,
        /// The column's name in the file's header.
        column: String,
        /// What the value must be.
        rule: Cow<'static, str>,
    },
    /// The text is no CSV.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] std::io::Error),
}

/// A text with rows, and how it is read.
pub struct Input<R> {
    /// The text.
    pub text: R,
    /// Its encoding, if it is named; without, it is UTF-8 or what its byte order mark says.
    pub encoding: Option<&'static Encoding>,
    /// What becomes of columns that the table does not have.
    pub unknown: UnknownColumns,
}

impl<R> Input<R> {
    /// In UTF-8, and with columns of the table alone.
    pub fn of(text: R) -> Self {
        Self { text, encoding: None, unknown: UnknownColumns::Refused }
    }
}

/// What came of an import.
#[derive(Debug)]
pub struct Imported {
    /// How many rows there are.
    pub rows: u64,
    /// What was taken otherwise than it was written, in sentences.
    pub notes: Vec<String>,
}

/// Why rows could not be moved.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The file is at fault.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The database is at fault, or refused the rows.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The commit has no answer that decides.
    #[error(
        "postgres did not answer the commit, so the rows may or may not be stored; look before importing them again"
    )]
    OutcomeUnknown(#[source] tokio_postgres::Error),
    /// There is nothing in the file; an export that failed looks so.
    #[error("there are no rows in it; if that is right, say --allow-empty")]
    Empty,
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
}

/// A violation of the key is the one refusal that rows which passed the rules can meet.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!(
            "postgres refused the rows: {}{}{}",
            db.message(),
            db.detail().map(|d| format!(" ({d})")).unwrap_or_default(),
            if *db.code() == SqlState::UNIQUE_VIOLATION {
                "; take the row out of the file or delete the stored one, or import without the column of the key"
            } else {
                ""
            }
        ),
        None => "the connection to postgres was lost".to_owned(),
    }
}

/// Loads CSV into the table; `progress` is told the bytes read so far.
///
/// # Errors
/// The first bad row, no row at all unless that is allowed, or what PostgreSQL refuses; nothing is kept then.
pub async fn import(
    table: impl Table,
    client: &mut Client,
    input: Input<impl Read + Send + 'static>,
    allow_empty: bool,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Imported, CopyError> {
    let transaction = client.transaction().await?;
    let imported = copy_in(table, &transaction, input, progress).await?;
    if imported.rows == 0 && !allow_empty {
        return Err(CopyError::Empty);
    }
    transaction.commit().await.map_err(|error| {
        if is_about_statement(&error) { CopyError::Postgres(error) } else { CopyError::OutcomeUnknown(error) }
    })?;
    analyze(client, table.table_name(), imported.rows).await;
    Ok(imported)
}

/// Loads the table's own data into a database that never had it; how many rows, or `None` when it had.
///
/// # Errors
/// As [`import`].
pub async fn seed(table: impl Table, rows: &'static [u8], client: &mut Client) -> Result<Option<u64>, CopyError> {
    let Some(transaction) = seed::claim(client, table.table_name()).await? else {
        return Ok(None);
    };
    let Imported { rows, .. } = copy_in(table, &transaction, Input::of(rows), |_| ()).await?;
    transaction.commit().await?;
    analyze(client, table.table_name(), rows).await;
    Ok(Some(rows))
}

/// Writes the table as CSV, in key order.
///
/// # Errors
/// When PostgreSQL or the output fails midway.
pub async fn export(table: impl Table, client: &Client, output: impl AsyncWrite + Unpin) -> Result<(), CopyError> {
    // PostgreSQL sends a message per row; written one by one, each would cost a hop to another thread.
    let mut output = BufWriter::with_capacity(CHUNK_BYTES, output);
    let mut chunks = pin!(client.copy_out(table.copy_out()).await?);
    while let Some(chunk) = chunks.try_next().await? {
        output.write_all(&chunk).await.map_err(CopyError::Output)?;
    }
    output.flush().await.map_err(CopyError::Output)
}

async fn copy_in(
    table: impl Table,
    transaction: &Transaction<'_>,
    input: Input<impl Read + Send + 'static>,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Imported, CopyError> {
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(table.copy_in()).await?);
    let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
    // Reading and parsing block, so they have a thread of their own; the channel keeps it from running ahead.
    let reader = tokio::task::spawn_blocking(move || encode(table, input, &sender, progress));
    while let Some(chunk) = receiver.recv().await {
        sink.send(chunk).await?;
    }
    // Without `finish` the copy is cancelled when the sink is dropped, so a bad row leaves nothing.
    let notes = reader.await.expect("parsing does not panic")?;
    let rows = sink.finish().await?;
    if let Some(statement) = table.behind_copy() {
        transaction.batch_execute(statement).await?;
    }
    Ok(Imported { rows, notes })
}

/// Parses CSV and sends it on as binary rows; what was taken otherwise than it was written.
fn encode<T: Table>(
    table: T,
    input: Input<impl Read>,
    sender: &mpsc::Sender<Bytes>,
    progress: impl Fn(u64),
) -> Result<Vec<String>, TableError> {
    let mut encoder = Encoder { table, unknown: input.unknown, header: None, rows: BinaryRows::default() };
    let mut read = 0;
    let records = file::read(input.text, input.encoding, &mut encoder, |encoder, length| {
        read += length as u64;
        progress(read);
        // Nobody takes them once the database has failed, which the other side reports.
        !encoder.rows.is_full() || sender.blocking_send(encoder.rows.take()).is_ok()
    })?;
    let _ = sender.blocking_send(encoder.rows.finish()); // fails only when the other side reports its own error
    Ok(encoder.header.map(|header| T::notes(&header).sentences(Some(&records))).unwrap_or_default())
}

/// What a text is encoded with: its header, once that was read, and the rows behind it.
struct Encoder<T: Table> {
    table: T,
    unknown: UnknownColumns,
    header: Option<T::Header>,
    rows: BinaryRows,
}

impl<T: Table> Sink for Encoder<T> {
    type Error = TableError;

    fn fits(&self, header: &Cells) -> bool {
        self.table.read_header(header, self.unknown).is_ok()
    }

    fn record(&mut self, record: &Cells) -> Result<(), TableError> {
        match &mut self.header {
            Some(header) => self.table.put(header, record, &mut self.rows),
            None => {
                self.header = Some(self.table.read_header(record, self.unknown)?);
                Ok(())
            }
        }
    }
}

/// Rows in `COPY`'s binary form, handed over in chunks.
#[derive(Debug)]
pub struct BinaryRows {
    chunk: BytesMut,
}

impl Default for BinaryRows {
    fn default() -> Self {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES * 2);
        chunk.put_slice(BINARY_HEADER);
        Self { chunk }
    }
}

impl BinaryRows {
    /// Appends a row whose values `put` writes.
    pub fn put(&mut self, put: impl FnOnce(&mut BinaryRow<'_>)) {
        let mut row = BinaryRow::begin(&mut self.chunk);
        put(&mut row);
        row.end();
    }

    /// Whether there is a chunk to be sent.
    pub fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_BYTES
    }

    /// The rows since the last chunk.
    pub fn take(&mut self) -> Bytes {
        let chunk = self.chunk.split().freeze();
        self.chunk.reserve(CHUNK_BYTES * 2);
        chunk
    }

    /// The rows since the last chunk, and the end of the copy.
    pub fn finish(mut self) -> Bytes {
        self.chunk.put_i16(BINARY_TRAILER);
        self.chunk.freeze()
    }
}

/// One row in the making: the number of columns, then each value with its length in front.
#[derive(Debug)]
pub struct BinaryRow<'a> {
    out: &'a mut BytesMut,
    start: usize,
    columns: i16,
}

impl<'a> BinaryRow<'a> {
    fn begin(out: &'a mut BytesMut) -> Self {
        let start = out.len();
        out.put_i16(0); // `end` puts the number of columns here
        Self { out, start, columns: 0 }
    }

    /// Appends a value in PostgreSQL's binary form, or null.
    pub fn put(&mut self, value: Option<&[u8]>) {
        self.columns += 1;
        match value {
            Some(value) => {
                self.out.put_i32(i32::try_from(value.len()).expect("the rules bound every text"));
                self.out.put_slice(value);
            }
            None => self.out.put_i32(-1), // null has a length of -1 and no bytes
        }
    }

    /// Appends a value that `encode` writes, or null when it says that there is none.
    pub fn put_with(&mut self, encode: impl FnOnce(&mut BytesMut) -> bool) {
        self.columns += 1;
        let start = self.out.len();
        self.out.put_i32(-1); // null has a length of -1 and no bytes
        if encode(self.out) {
            let length = self.out.len() - start - size_of::<i32>();
            let length = i32::try_from(length).expect("the rules bound every text");
            self.out[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn end(self) {
        self.out[self.start..self.start + 2].copy_from_slice(&self.columns.to_be_bytes());
    }
}
