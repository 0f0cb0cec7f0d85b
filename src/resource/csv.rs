//! Rows as CSV: the headers that are accepted, and how a record becomes a row.
//!
//! A header is a column's name or one of the others that its description lists, whatever its case and punctuation; `uuid`
//! may be there. A fault names the line, the column and the rule.

use csv::StringRecord;
use uuid::Uuid;

use super::column::Column;
use super::definition::Resource;
use super::description::header_key;
use super::row::Record;
use super::value::Value;
use crate::db::copy::{BinaryRow, Table, TableError};
use crate::db::records::line_of;

/// Where each column stands in the file's records.
#[derive(Debug)]
pub struct Header {
    resource: &'static Resource,
    names: Vec<String>,
    /// For each column, the key first; one that is not required may be missing.
    cells: Vec<Option<usize>>,
}

impl Header {
    /// Finds the columns in a header record.
    ///
    /// # Errors
    /// When a column is unknown, a duplicate or missing.
    pub fn read(resource: &'static Resource, record: &StringRecord) -> Result<Self, TableError> {
        let expected = resource.expected_header;
        let fault = |fault: String| TableError::Header { line: line_of(record), fault, expected };
        let mut cells = vec![None; resource.columns.len()];
        for (index, name) in record.iter().enumerate() {
            let key = header_key(name);
            let column = resource.columns.iter().find(|column| column.headers.contains(&key));
            let column = column.ok_or_else(|| fault(format!("unknown column {name:?}")))?;
            if cells[column.position].replace(index).is_some() {
                return Err(fault(format!("duplicate column {name:?}")));
            }
        }
        for column in resource.fields() {
            if column.required && cells[column.position].is_none() {
                return Err(fault(format!("missing column {:?}", column.name)));
            }
        }
        Ok(Self { resource, names: record.iter().map(str::to_owned).collect(), cells })
    }

    /// Whether rows name their keys.
    pub fn has_uuid(&self) -> bool {
        self.cells[0].is_some()
    }

    /// Reads a record; a row without a uuid of its own gets a new one, so that file order is key order.
    ///
    /// # Errors
    /// The first value that breaks its column's rule.
    pub fn row<'a>(&self, record: &'a StringRecord) -> Result<Record<'a>, TableError> {
        let uuid = match self.cells[0] {
            None => Uuid::now_v7(),
            Some(index) => match Uuid::try_parse(record.get(index).unwrap_or_default()) {
                Ok(uuid) => uuid,
                Err(_) => return Err(self.fault(record, index, self.resource.key())),
            },
        };
        let value = |column: &Column| match self.cells[column.position] {
            None => Ok(column.default.clone()),
            Some(index) => {
                let cell = record.get(index).unwrap_or_default();
                column.read_csv(cell).ok_or_else(|| self.fault(record, index, column))
            }
        };
        let values = self.resource.fields().iter().map(value).collect::<Result<_, _>>()?;
        Ok(Record { uuid, values })
    }

    fn fault(&self, record: &StringRecord, index: usize, column: &Column) -> TableError {
        TableError::Value { line: line_of(record), column: self.names[index].clone(), rule: column.csv_rule }
    }
}

impl Table for &'static Resource {
    type Header = Header;

    fn name(self) -> &'static str {
        self.table
    }

    fn copy_in(self) -> &'static str {
        self.sql.copy_in
    }

    fn copy_out(self) -> &'static str {
        self.sql.copy_out
    }

    fn read_header(self, record: &StringRecord) -> Result<Header, TableError> {
        Header::read(self, record)
    }

    fn put(self, header: &Header, record: &StringRecord, row: &mut BinaryRow<'_>) -> Result<(), TableError> {
        put(self, &header.row(record)?, row);
        Ok(())
    }
}

/// Writes a row in the order of [`Table::copy_in`].
pub fn put(resource: &Resource, record: &Record<'_>, row: &mut BinaryRow<'_>) {
    row.put(Some(record.uuid.as_bytes()));
    for (column, value) in resource.fields().iter().zip(&record.values) {
        Value::put(value, &column.pg_type(), row);
    }
}
