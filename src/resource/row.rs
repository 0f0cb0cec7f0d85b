//! Rows: as a client sends them, as the database sends them, and as JSON.

use bytes::Bytes;
use tokio_postgres::Row;
use uuid::Uuid;

use super::column::Column;
use super::definition::Resource;
use super::value::{Raw, Value};
use crate::db::error::StoreError;

/// Approximate size of a row as JSON in bytes.
pub const JSON_BYTES: usize = 256;

/// A row in memory: its key, and the values of the other columns in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// The key, version 7.
    pub uuid: Uuid,
    /// The values of the columns that a client sets.
    pub values: Vec<Value<'a>>,
}

/// The new value of each column except the key; `None` leaves a value unchanged.
pub type Patch<'a> = Vec<Option<Value<'a>>>;

/// A row as stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The row as JSON.
    pub document: Bytes,
    /// The version of this state.
    pub version: i64,
}

/// Converts values to owned ones, which outlive the request body.
pub fn owned(values: Vec<Value<'_>>) -> Vec<Value<'static>> {
    values.into_iter().map(Value::into_owned).collect()
}

/// Converts a patch to an owned one.
pub fn owned_patch(patch: Patch<'_>) -> Patch<'static> {
    patch.into_iter().map(|value| value.map(Value::into_owned)).collect()
}

/// The value of a column in a row of a statement that selects every column.
///
/// # Errors
/// [`StoreError::Unreadable`] for a value that the rules of the column do not allow.
pub fn value<'a>(row: &'a Row, column: &Column) -> Result<Value<'a>, StoreError> {
    let Raw(raw) = row.try_get(column.position)?;
    column.decode(raw).map_err(|error| StoreError::Unreadable { column: error.column })
}

/// The key of a row whose first column it is.
///
/// # Errors
/// [`StoreError::Internal`] when there is none.
pub fn key(row: &Row) -> Result<Uuid, StoreError> {
    Ok(row.try_get(0)?)
}

/// Appends a row of a statement that selects these columns in this order, as JSON.
///
/// # Errors
/// As [`value`].
pub fn write_row(columns: &[Column], row: &Row, out: &mut Vec<u8>) -> Result<(), StoreError> {
    for column in columns {
        out.extend_from_slice(column.json_key);
        let Raw(raw) = row.try_get(column.position)?;
        column.write_json(raw, out).ok_or_else(|| StoreError::Unreadable { column: column.name })?;
    }
    out.push(b'}');
    Ok(())
}

impl Record<'_> {
    /// Appends the row as JSON.
    pub fn write_json(&self, resource: &Resource, out: &mut Vec<u8>) {
        out.extend_from_slice(resource.key().json_key);
        Value::Uuid(self.uuid).write_json(out);
        for (column, value) in resource.fields().iter().zip(&self.values) {
            out.extend_from_slice(column.json_key);
            value.write_json(out);
        }
        out.push(b'}');
    }

    /// The row as JSON.
    pub fn document(&self, resource: &Resource) -> Bytes {
        let mut buffer = Vec::with_capacity(JSON_BYTES);
        self.write_json(resource, &mut buffer);
        buffer.into()
    }
}

/// Reports the same error for every item of a batch.
pub fn all_failed<O>(count: usize, error: &StoreError) -> Vec<Result<O, StoreError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}
