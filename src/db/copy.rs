//! CSV import into a table and export from it through `COPY`: streaming, all or nothing, for every resource.
//!
//! A resource defines its columns and how a row is converted to binary values ([`Table`]); reading, streaming, progress and the
//! transaction are here. Memory use is bounded regardless of the file's size, and an invalid row ends the import before
//! anything is stored.

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
/// Maximum number of chunks waiting while PostgreSQL reads the previous one.
const CHUNKS_AHEAD: usize = 2;

/// Signature, flags and extension length that open a binary `COPY` (PostgreSQL documentation, "COPY", "Binary Format").
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const BINARY_TRAILER: i16 = -1;

/// A resource's table as CSV: what `import`, `export` and the seed require of it.
pub trait Table: Copy + Send + Sync + 'static {
    /// A parsed header row: the position of each column in the file.
    type Header: Send;

    /// The table's name, which is also the name of its seed.
    fn table_name(self) -> &'static str;

    /// `copy … from stdin (format binary)`, with the columns that [`Table::put`] writes.
    fn copy_in(self) -> &'static str;

    /// `copy (select …) to stdout (format csv, header true)`, in the form that import reads.
    fn copy_out(self) -> &'static str;

    /// A statement to run after the copy, in its transaction.
    fn behind_copy(self) -> Option<&'static str> {
        None
    }

    /// Parses a header row.
    ///
    /// # Errors
    /// If a column is unknown, duplicate or missing.
    fn read_header(self, record: &Cells, unknown: UnknownColumns) -> Result<Self::Header, TableError>;

    /// Validates a record and writes the values of its row, if the record has any, in the order of the copy's columns.
    ///
    /// # Errors
    /// The first value that violates its column's rule.
    fn put(self, header: &mut Self::Header, record: &Cells, rows: &mut BinaryRows) -> Result<(), TableError>;

    /// Notes about input that was interpreted differently from its literal form.
    fn notes(header: &Self::Header) -> &Notes;
}

/// Why a CSV file was rejected.
#[derive(Debug, Error)]
pub enum TableError {
    /// The header does not match the table's columns.
    #[error("line {line}: {fault}; the header must be {expected}")]
    Header {
        /// Line of the header, counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: String,
        /// The columns, in readable form.
        expected: &'static str,
    },
    /// A value violates its column's rule.
    #[error("line {line}, column {column}: {rule}")]
    Value {
        /// First line of the row, counted from 1.
        line: u64,
        /// The column's name in the file's header.
        column: String,
        /// What the value must be.
        rule: Cow<'static, str>,
    },
    /// The text is not CSV.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] std::io::Error),
}

/// CSV text and how to read it.
pub struct Input<R> {
    /// The text.
    pub text: R,
    /// Its encoding; without one, the byte order mark's, or UTF-8.
    pub encoding: Option<&'static Encoding>,
    /// How columns that the table does not have are handled.
    pub unknown: UnknownColumns,
}

impl<R> Input<R> {
    /// Text in UTF-8 that has only the table's columns.
    pub fn of(text: R) -> Self {
        Self { text, encoding: None, unknown: UnknownColumns::Refused }
    }
}

/// Result of an import.
#[derive(Debug)]
pub struct Imported {
    /// Number of rows.
    pub rows: u64,
    /// Notes about input that was interpreted differently from its literal form, as sentences.
    pub notes: Vec<String>,
}

/// Why rows could not be copied.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The file is invalid.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The database failed or rejected the rows.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The outcome of the commit is unknown.
    #[error(
        "postgres did not confirm the commit, so the rows may or may not be stored; check before importing them again"
    )]
    OutcomeUnknown(#[source] tokio_postgres::Error),
    /// The file has no rows; the output of a failed export looks the same.
    #[error("the input has no rows; if this is intended, use --allow-empty")]
    Empty,
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
}

/// Rows that passed validation can be rejected only because of a duplicate key.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!(
            "postgres rejected the rows: {}{}{}",
            db.message(),
            db.detail().map(|d| format!(" ({d})")).unwrap_or_default(),
            if *db.code() == SqlState::UNIQUE_VIOLATION {
                "; remove the row from the file or delete the stored one, or import without the key column"
            } else {
                ""
            }
        ),
        None => "the connection to postgres was lost".to_owned(),
    }
}

/// Imports CSV into the table; `progress` is called with the number of bytes read so far.
///
/// # Errors
/// The first invalid row, an input without rows unless that is allowed, or PostgreSQL's rejection; nothing is stored then.
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

/// Loads the table's own data into a database that has never been seeded with it; returns the number of rows, or `None` if it
/// had been.
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

/// Writes the table as CSV, in the order of the key.
///
/// # Errors
/// If PostgreSQL or the output fails midway.
pub async fn export(table: impl Table, client: &Client, output: impl AsyncWrite + Unpin) -> Result<(), CopyError> {
    // PostgreSQL sends one message per row; written separately, each would require a switch to another thread.
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
    // Reading and parsing block, so they have their own thread; the channel keeps it from running ahead.
    let reader = tokio::task::spawn_blocking(move || encode(table, input, &sender, progress));
    while let Some(chunk) = receiver.recv().await {
        sink.send(chunk).await?;
    }
    // Without `finish`, dropping the sink cancels the copy, so an invalid row leaves nothing.
    let notes = reader.await.expect("parsing does not panic")?;
    let rows = sink.finish().await?;
    if let Some(statement) = table.behind_copy() {
        transaction.batch_execute(statement).await?;
    }
    Ok(Imported { rows, notes })
}

/// Parses CSV and sends it as binary rows; returns the notes.
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
        // The channel is closed once the database has failed, which the receiver reports.
        !encoder.rows.is_full() || sender.blocking_send(encoder.rows.take()).is_ok()
    })?;
    let _ = sender.blocking_send(encoder.rows.finish()); // fails only if the receiver reports its own error
    Ok(encoder.header.map(|header| T::notes(&header).sentences(Some(&records))).unwrap_or_default())
}

/// State of the encoding: the header, once read, and the rows after it.
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

/// Rows in `COPY`'s binary format, passed on in chunks.
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

    /// Whether a chunk is ready to be sent.
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

/// A row being written: the number of columns, then each value with its length before it.
#[derive(Debug)]
pub struct BinaryRow<'a> {
    out: &'a mut BytesMut,
    start: usize,
    columns: i16,
}

impl<'a> BinaryRow<'a> {
    fn begin(out: &'a mut BytesMut) -> Self {
        let start = out.len();
        out.put_i16(0); // `end` writes the number of columns here
        Self { out, start, columns: 0 }
    }

    /// Appends a value in PostgreSQL's binary format, or null.
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

    /// Appends a value that `encode` writes, or null if it returns false.
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
