//! Serialises the rows of a list in the negotiated format: JSON, CSV, newline-delimited JSON, or a single object.
//!
//! CSV is what `export` writes and `import` reads: texts are unchanged, and quoted as RFC 4180 requires.

use std::convert::Infallible;

use tokio_postgres::Row;

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::row;
use crate::db::error::StoreError;
use crate::http::format::Format;

/// The format and columns of a list.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The resource listed.
    pub resource: &'static Resource,
    /// The format.
    pub format: Format,
    /// The columns, in the requested order; all when absent.
    pub columns: Option<Vec<&'static Column>>,
}

impl Shape {
    /// Calls `each` with every column of the response and whether it is the first.
    fn each_column<E>(&self, mut each: impl FnMut(bool, &Column) -> Result<(), E>) -> Result<(), E> {
        match &self.columns {
            Some(columns) => columns.iter().enumerate().try_for_each(|(index, column)| each(index == 0, column)),
            None => self.resource.columns.iter().try_for_each(|column| each(column.position == 0, column)),
        }
    }

    /// Writes what comes before the first row.
    pub fn begin(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => out.push(b'['),
            Format::Csv => {
                let Ok(()) = self.each_column(|first, column| {
                    out.extend_from_slice(if first { b"" } else { b"," });
                    out.extend_from_slice(column.name.as_bytes());
                    Ok::<_, Infallible>(())
                });
                out.push(b'\n');
            }
            Format::Ndjson | Format::Object => {}
        }
    }

    /// Writes a row of a statement that selects every column; `first` if it is the first row.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] for a value that the rules of its column do not allow.
    pub fn row(&self, first: bool, row: &Row, out: &mut Vec<u8>) -> Result<(), StoreError> {
        match self.format {
            Format::Json => {
                if !first {
                    out.push(b',');
                }
                self.object(row, out)
            }
            Format::Csv => self.line(row, out),
            Format::Ndjson => {
                self.object(row, out)?;
                out.push(b'\n');
                Ok(())
            }
            Format::Object => self.object(row, out),
        }
    }

    /// Writes what comes after the last row.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.format == Format::Json {
            out.push(b']');
        }
    }

    fn object(&self, row: &Row, out: &mut Vec<u8>) -> Result<(), StoreError> {
        if self.columns.is_none() {
            return row::write_row(&self.resource.columns, row, out);
        }
        out.push(b'{');
        self.each_column(|first, column| {
            out.extend_from_slice(if first { b"\"" } else { b",\"" });
            out.extend_from_slice(column.name.as_bytes());
            out.extend_from_slice(b"\":");
            row::value(row, column)?.write_json(out);
            Ok::<_, StoreError>(())
        })?;
        out.push(b'}');
        Ok(())
    }

    fn line(&self, row: &Row, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let start = out.len();
        self.each_column(|first, column| {
            out.extend_from_slice(if first { b"" } else { b"," });
            row::value(row, column)?.write_csv(out);
            Ok::<_, StoreError>(())
        })?;
        if out.len() == start {
            out.extend_from_slice(b"\"\""); // an empty line would be skipped by readers; this row is a single null
        }
        out.push(b'\n');
        Ok(())
    }
}
