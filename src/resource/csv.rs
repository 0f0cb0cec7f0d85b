//! Rows as CSV: accepted headers, and converting a record to a row.
//!
//! A header is a column's name or one of the alternatives in its description, ignoring case and punctuation; `uuid` is
//! optional. An unnamed column is accepted if it is empty or numbers the rows, as pandas and R write it. An error names the
//! line, the column and the rule.

use std::borrow::Cow;

use uuid::Uuid;

use super::column::Column;
use super::column::cell::ReadState;
use super::definition::Resource;
use super::description::header_key;
use super::kind::Kind;
use super::row::Record;
use super::time::begins_as_iso;
use super::unnamed::{UNNAMED_RULE, UnnamedColumn, is_unnamed};
use super::value::Value;
use crate::csv::cells::Cells;
use crate::csv::fault::{Fault, Location, Malformed};
use crate::csv::notes::{Notes, UnknownColumns};
use crate::csv::separator::SEPARATORS;
use crate::db::copy::{BinaryRow, BinaryRows, Table, TableError};

/// The position of each column in the records of a file, and the state of reading it.
#[derive(Debug)]
pub struct Header {
    columns: &'static [Column],
    names: Vec<String>,
    /// The index of each column in a record; one that is not required may be missing.
    indexes: Vec<Option<usize>>,
    /// Unnamed columns and their indexes.
    unnamed: Vec<(usize, UnnamedColumn)>,
    is_padded: bool,
    state: ReadState,
}

impl Header {
    /// Locates the columns in a header record.
    ///
    /// # Errors
    /// When a column is unknown, a duplicate or missing.
    pub fn read(
        columns: &'static [Column],
        expected: &'static str,
        record: &Cells,
        unknown: UnknownColumns,
    ) -> Result<Self, TableError> {
        let fault = |fault: String| TableError::Header { line: record.line(), fault, expected };
        let mut indexes = vec![None; columns.len()];
        let mut unnamed = Vec::new();
        let mut state = ReadState::default();
        without_other_quotes(record).map_err(fault)?;
        state.notes.separator = Some(record.separator());
        for (index, name) in record.texts().enumerate() {
            let key = header_key(name);
            match columns.iter().find(|column| column.headers.contains(&key)) {
                Some(column) => {
                    if indexes[column.position].replace(index).is_some() {
                        return Err(fault(format!("duplicate column {name:?}")));
                    }
                }
                None if unknown == UnknownColumns::Ignored && name.trim().is_empty() => {
                    state.notes.left_out(&format!("column {}", index + 1));
                }
                None if unknown == UnknownColumns::Ignored => state.notes.left_out(name.trim()),
                None if is_unnamed(name) => unnamed.push((index, UnnamedColumn::default())),
                None => return Err(fault(format!("unknown column {name:?}{}", quotes_hint(record)))),
            }
        }
        for column in columns {
            if column.required && indexes[column.position].is_none() {
                return Err(fault(format!("missing column {:?}", column.name)));
            }
        }
        state.notes.nameless = unnamed.len() as u64;
        let names = record.texts().map(|name| name.trim().to_owned()).collect();
        Ok(Self { columns, names, indexes, unnamed, is_padded: has_blanks(record), state })
    }

    /// Reads the header for the rows of a resource.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn of(resource: &'static Resource, record: &Cells, unknown: UnknownColumns) -> Result<Self, TableError> {
        Self::read(&resource.columns, resource.expected_header, record, unknown)
    }

    /// Whether the file has the column at this position.
    pub fn has(&self, position: usize) -> bool {
        self.indexes[position].is_some()
    }

    /// The file's name for the column at this position.
    pub fn name(&self, position: usize) -> &str {
        self.indexes[position].map_or(self.columns[position].name, |index| &self.names[index])
    }

    /// Counts of converted values.
    pub fn notes(&self) -> &Notes {
        &self.state.notes
    }

    /// Counts a date or time that was read by the caller, if its form is not that of ISO 8601.
    pub fn note_time(&mut self, text: &str) {
        self.state.notes.dates += u64::from(!begins_as_iso(text));
    }

    /// Reads the value of each column, or its default if the file does not have it; `None` for a row without values.
    ///
    /// # Errors
    /// The first value that breaks its column's rule.
    pub fn values<'a>(&mut self, record: &'a Cells) -> Result<Option<Vec<Value<'a>>>, TableError> {
        let checked = self.check(record);
        // A row number is not a value, but any other text in its column might be.
        let counts = checked.is_ok();
        match checked.and_then(|()| self.validated(record)) {
            Ok(values) => Ok(Some(values)),
            Err(_) if self.is_empty(record, counts) => {
                self.state.notes.empty_rows += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn validated<'a>(&mut self, record: &'a Cells) -> Result<Vec<Value<'a>>, TableError> {
        let Self { columns, indexes, state, .. } = self;
        let is_padded = self.is_padded || record.is_padded() || {
            let mut placed = columns.iter().zip(indexes.iter()).filter(|(column, _)| ignores_blanks(column));
            placed.any(|(_, index)| {
                index.and_then(|index| record.get(index)).is_some_and(|cell| {
                    let value = cell.text.trim();
                    !cell.is_quoted && !value.is_empty() && cell.text.len() > value.len()
                })
            })
        };
        let value = |(column, index): (&Column, &Option<usize>)| {
            let Some(index) = *index else { return Ok(column.default.clone()) };
            let Some(cell) = record.get(index) else { return Ok(column.default.clone()) };
            column.read_cell(cell, record.separator(), is_padded, state).map_err(|rule| TableError::Value {
                line: record.line(),
                column: self.names[index].clone(),
                rule,
            })
        };
        columns.iter().zip(indexes.iter()).map(value).collect()
    }

    /// Checks the number of cells, that it is not the header again, and the unnamed columns.
    fn check(&mut self, record: &Cells) -> Result<(), TableError> {
        let (expected, found) = (self.names.len(), record.count());
        let malformed = |fault| Err(Malformed { line: record.line(), location: Location::Record, fault }.into());
        if expected != found {
            return malformed(Fault::Width { expected, found });
        }
        if expected > 1 && record.texts().zip(&self.names).all(|(text, name)| text.trim() == name) {
            return malformed(Fault::RepeatedHeader);
        }
        for (index, column) in &mut self.unnamed {
            if !record.get(*index).is_some_and(|cell| column.take(cell.text)) {
                let name = &self.names[*index];
                return Err(TableError::Value {
                    line: record.line(),
                    column: if name.is_empty() { (*index + 1).to_string() } else { name.clone() },
                    rule: Cow::Borrowed(UNNAMED_RULE),
                });
            }
        }
        Ok(())
    }

    /// Whether no cell has a value; `counts` states that unnamed columns contain row numbers.
    fn is_empty(&self, record: &Cells, counts: bool) -> bool {
        let is_count = |index: usize| counts && self.unnamed.iter().any(|(unnamed, _)| *unnamed == index);
        record.texts().enumerate().all(|(index, text)| is_count(index) || text.trim().is_empty())
    }
}

/// The probable cause if a header is a single cell that contains separators.
fn quotes_hint(header: &Cells) -> &'static str {
    let mut cells = header.iter();
    match (cells.next(), cells.next()) {
        (Some(cell), None) if cell.is_quoted && cell.text.contains(SEPARATORS) => {
            ", because the whole line is in quotes; remove the quotes around each line"
        }
        _ => "",
    }
}

/// Checks that no name of a header is in quotes that CSV does not have: they would become part of every text.
///
/// # Errors
/// The fault.
pub(super) fn without_other_quotes(header: &Cells) -> Result<(), String> {
    let mut names = header.iter().filter(|cell| !cell.is_quoted).map(|cell| cell.text.trim());
    match names.find(|name| is_in_other_quotes(name)) {
        None => Ok(()),
        Some(name) => Err(format!("column {name} is in quotes other than \"; use \" in the whole file")),
    }
}

/// Whether a name is in quotes that do not enclose cells.
fn is_in_other_quotes(name: &str) -> bool {
    let pairs = [("'", "'"), ("`", "`"), ("‘", "’"), ("“", "”"), ("„", "“"), ("«", "»")];
    let is_in =
        |(open, close): &(&str, &str)| name.len() > open.len() && name.starts_with(open) && name.ends_with(close);
    pairs.iter().any(is_in)
}

/// Whether every name but one in the first cell starts with a blank, so that blanks belong to the separators.
fn has_blanks(header: &Cells) -> bool {
    let mut names = header.texts().skip(1).filter(|text| !text.is_empty()).peekable();
    header.is_padded() || (names.peek().is_some() && names.all(|name| name.starts_with([' ', '\t'])))
}

/// Whether surrounding blanks are insignificant, because no value of the column has any.
fn ignores_blanks(column: &Column) -> bool {
    !matches!(column.kind, Kind::Text { .. })
}

/// The rows of a resource, read from CSV.
#[derive(Debug)]
pub struct Rows(Header);

impl Rows {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn with_header(
        resource: &'static Resource,
        record: &Cells,
        unknown: UnknownColumns,
    ) -> Result<Self, TableError> {
        Header::of(resource, record, unknown).map(Self)
    }

    /// Whether the file has a uuid column.
    pub fn have_uuid(&self) -> bool {
        self.0.has(0)
    }

    /// Counts of converted values.
    pub fn notes(&self) -> &Notes {
        self.0.notes()
    }

    /// Reads a record; a row without a uuid gets a new one, so that file order is key order.
    ///
    /// # Errors
    /// As [`Header::values`].
    pub fn row<'a>(&mut self, record: &'a Cells) -> Result<Option<Record<'a>>, TableError> {
        let Some(mut values) = self.0.values(record)? else { return Ok(None) };
        let uuid = match values.remove(0) {
            Value::Uuid(uuid) => uuid,
            _ => Uuid::now_v7(),
        };
        Ok(Some(Record { uuid, values }))
    }
}

impl Table for &'static Resource {
    type Header = Rows;

    fn table_name(self) -> &'static str {
        self.table
    }

    fn copy_in(self) -> &'static str {
        self.sql.copy_in
    }

    fn copy_out(self) -> &'static str {
        self.sql.copy_out
    }

    fn behind_copy(self) -> Option<&'static str> {
        self.sql.history.as_ref().map(|history| history.imported)
    }

    fn read_header(self, record: &Cells, unknown: UnknownColumns) -> Result<Rows, TableError> {
        Rows::with_header(self, record, unknown)
    }

    fn put(self, rows: &mut Rows, record: &Cells, out: &mut BinaryRows) -> Result<(), TableError> {
        if let Some(record) = rows.row(record)? {
            out.put(|row| put(self, &record, row));
        }
        Ok(())
    }

    fn notes(rows: &Rows) -> &Notes {
        rows.notes()
    }
}

/// Writes a row in the column order of [`Table::copy_in`].
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
    use crate::csv::file::cells;

    fn names(resource: &Resource) -> Cells {
        resource.columns.iter().map(|column| column.name).collect()
    }

    fn rows(resource: &'static Resource, header: &Cells) -> Result<Rows, TableError> {
        Rows::with_header(resource, header, UnknownColumns::Refused)
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(
            texts in prop::collection::vec("\\PC{0,12}|-?[0-9]{1,30}|nan|1e999", 9), text in "\\PC{0,80}",
        ) {
            let record = texts.iter().map(String::as_str).collect();
            let _ = rows(passengers(), &text.split(',').collect()); // an error is fine
            let mut rows = rows(passengers(), &names(passengers())).expect("our own header");
            prop_assert!(rows.row(&record).is_err(), "no record begins with such a uuid");
        }

        #[test]
        fn what_is_written_as_csv_is_read_back_the_same(
            (resource, row) in resource().prop_flat_map(|resource| (Just(resource), record(resource))),
        ) {
            let mut text: Vec<u8> = names(resource).texts().collect::<Vec<_>>().join(",").into();
            text.push(b'\n');
            for column in &resource.columns {
                text.extend_from_slice(if column.position == 0 { b"" } else { b"," });
                row.value(column).write_csv(&mut text);
            }
            text.push(b'\n');
            let records = cells(&text);
            let mut rows = rows(resource, &records[0]).expect("our own header");
            prop_assert_eq!(rows.row(&records[1]).expect("it breaks no rule"), Some(row));
            prop_assert_eq!(rows.notes(), &Notes { separator: Some(','), ..Notes::default() });
        }
    }
}
