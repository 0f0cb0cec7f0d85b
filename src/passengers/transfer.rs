//! Passengers in bulk: CSV into the table and out of it, through `COPY`, streaming, all or nothing.
//!
//! Memory is bounded whatever the file's size. A bad row ends the import before anything is kept.

use std::io::Read;
use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use csv::{ReaderBuilder, StringRecord};
use futures_util::{SinkExt, TryStreamExt};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_postgres::{Client, Transaction};

use super::model::Passenger;
use super::table::{Header, TableError};
use crate::db::seed;

const COPY_IN: &str = "copy passengers (uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare) from stdin (format binary)";

/// The same columns and order that import reads. A boolean cast to text is `true` or `false`.
const COPY_OUT: &str = "copy (select uuid, survived::text as survived, passenger_class as \"passengerClass\", name, sex, \
     age, siblings_or_spouses_aboard as \"siblingsOrSpousesAboard\", \
     parents_or_children_aboard as \"parentsOrChildrenAboard\", fare from passengers order by uuid) \
     to stdout (format csv, header true)";

/// What a fresh database is seeded with: the 891 passengers with a known record.
const SEED_CSV: &[u8] = include_bytes!("../../data/passengers.csv");
const SEED_NAME: &str = "passengers";

/// Encoded rows are handed over in pieces of about this size.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that may wait while PostgreSQL takes the one before.
const PIECES_AHEAD: usize = 2;

/// Signature, flags and extension length that open a binary `COPY` (PostgreSQL documentation, "COPY", "Binary Format").
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const BINARY_TRAILER: i16 = -1;
const COLUMNS: i16 = 9;

/// Why rows could not be moved.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The file is at fault.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The database is at fault, or refused the rows.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
}

/// A violation of the key is the one refusal that rows which passed the rules can meet.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!(
            "postgres refused the rows: {}{}",
            db.message(),
            db.detail().map(|d| format!(" ({d})")).unwrap_or_default()
        ),
        None => "the connection to postgres was lost".to_owned(),
    }
}

/// Loads CSV into the table and returns the number of rows; `progress` is told the bytes read so far.
///
/// # Errors
/// The first bad row, or what PostgreSQL refuses; nothing is kept then.
pub async fn import(
    client: &mut Client,
    input: impl Read + Send + 'static,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<u64, TransferError> {
    let transaction = client.transaction().await?;
    let rows = copy_in(&transaction, input, progress).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// Loads the real passengers into a database that never had them; how many, or `None` when it had.
///
/// # Errors
/// As [`import`].
pub async fn seed(client: &mut Client) -> Result<Option<u64>, TransferError> {
    let Some(transaction) = seed::claim(client, SEED_NAME).await? else {
        return Ok(None);
    };
    let rows = copy_in(&transaction, SEED_CSV, |_| ()).await?;
    transaction.commit().await?;
    Ok(Some(rows))
}

/// Writes the table as CSV, in key order.
///
/// # Errors
/// When PostgreSQL or the output fails midway.
pub async fn export(client: &Client, mut output: impl AsyncWrite + Unpin) -> Result<(), TransferError> {
    let mut pieces = pin!(client.copy_out(COPY_OUT).await?);
    while let Some(piece) = pieces.try_next().await? {
        output.write_all(&piece).await.map_err(TransferError::Output)?;
    }
    output.flush().await.map_err(TransferError::Output)
}

async fn copy_in(
    transaction: &Transaction<'_>,
    input: impl Read + Send + 'static,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<u64, TransferError> {
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(COPY_IN).await?);
    let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD);
    // Reading and parsing block, so they have a thread of their own; the channel keeps it from running ahead.
    let reader = tokio::task::spawn_blocking(move || encode(input, &sender, progress));
    while let Some(piece) = receiver.recv().await {
        sink.send(piece).await?;
    }
    // Without `finish` the copy is cancelled when the sink is dropped, so a bad row leaves nothing.
    reader.await.expect("parsing does not panic")?;
    Ok(sink.finish().await?)
}

/// Parses CSV and sends it on as binary rows.
fn encode(input: impl Read, sender: &mpsc::Sender<Bytes>, progress: impl Fn(u64)) -> Result<(), TableError> {
    let mut reader = ReaderBuilder::new().from_reader(input);
    let header = Header::read(reader.headers()?)?;
    let mut record = StringRecord::new();
    let mut piece = BytesMut::with_capacity(PIECE_BYTES * 2);
    piece.put_slice(BINARY_HEADER);
    while reader.read_record(&mut record)? {
        put_row(&mut piece, &header.passenger(&record)?);
        if piece.len() >= PIECE_BYTES {
            progress(reader.position().byte());
            if sender.blocking_send(piece.split().freeze()).is_err() {
                return Ok(()); // the database failed, which the other side reports
            }
            piece.reserve(PIECE_BYTES * 2);
        }
    }
    piece.put_i16(BINARY_TRAILER);
    progress(reader.position().byte());
    let _ = sender.blocking_send(piece.freeze()); // fails only when the other side reports its own error
    Ok(())
}

/// One row: the number of columns, then each value with its length in front.
fn put_row(out: &mut BytesMut, passenger: &Passenger<'_>) {
    let details = &passenger.details;
    out.put_i16(COLUMNS);
    put_value(out, passenger.uuid.as_bytes());
    put_value(out, &[u8::from(details.survived)]);
    put_value(out, &details.passenger_class.to_be_bytes());
    put_value(out, details.name.as_bytes());
    put_value(out, details.sex.as_str().as_bytes());
    match details.age {
        Some(age) => put_value(out, &age.to_be_bytes()),
        None => out.put_i32(-1), // null has a length of -1 and no bytes
    }
    put_value(out, &details.siblings_or_spouses_aboard.to_be_bytes());
    put_value(out, &details.parents_or_children_aboard.to_be_bytes());
    put_value(out, &details.fare.to_be_bytes());
}

fn put_value(out: &mut BytesMut, value: &[u8]) {
    out.put_i32(i32::try_from(value.len()).expect("a name has at most 600 bytes"));
    out.put_slice(value);
}
