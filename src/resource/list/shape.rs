//! Writes rows of a list in the form that the client likes best: JSON, CSV, one JSON object per line, or the only row as an object.
//!
//! CSV is what `export` writes and `import` takes: a text is written as it stands, and quoted where RFC 4180 says so.

use std::convert::Infallible;

use tokio_postgres::Row;

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::row;
use crate::db::error::StoreError;
use crate::http::format::Format;

/// The form of a list and the columns in it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// What is listed.
    pub resource: &'static Resource,
    /// The form.
    pub format: Format,
    /// The columns, in the order they were asked for; all when absent.
    pub columns: Option<Vec<&'static Column>>,
}

impl Shape {
    /// Calls `each` with every column of the answer and whether it is the first.
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

    /// Writes a row of the statements that select every column; `first` when none came before it.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] for a value that its column cannot have.
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
            out.extend_from_slice(b"\"\""); // readers pass over an empty line; a null alone in its row is no such
        }
        out.push(b'\n');
        Ok(())
    }
}
