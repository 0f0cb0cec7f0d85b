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

    fn table_name(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arbitrary::{record, resource};
    use super::super::registry::passengers;
    use super::*;

    fn names(resource: &Resource) -> StringRecord {
        resource.columns.iter().map(|column| column.name).collect()
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(cells in prop::collection::vec("\\PC{0,12}|-?[0-9]{1,30}|nan|1e999", 9), text in "\\PC{0,80}") {
            let record = StringRecord::from(cells);
            let _ = Header::read(passengers(), &StringRecord::from(text.split(',').collect::<Vec<_>>())); // a fault is as good
            let header = Header::read(passengers(), &names(passengers())).expect("our own header");
            prop_assert!(header.row(&record).is_err(), "no record begins with such a uuid");
        }

        #[test]
        fn what_is_written_as_csv_is_read_back_the_same(
            (resource, row) in resource().prop_flat_map(|resource| (Just(resource), record(resource))),
        ) {
            let mut line = Vec::new();
            for column in &resource.columns {
                line.extend_from_slice(if column.position == 0 { b"" } else { b"," });
                row.value(column).write_csv(&mut line);
            }
            line.push(b'\n');
            let header = Header::read(resource, &names(resource)).expect("our own header");
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_slice());
            let record = reader.records().next().expect("a row").expect("valid CSV");
            prop_assert_eq!(header.row(&record).expect("it breaks no rule"), row);
        }
    }
}
