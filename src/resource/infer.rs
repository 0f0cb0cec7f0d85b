//! Infers a description from a CSV file, so that `import` accepts every row of that file.
//!
//! The file is read once, with the reader of `import`, and each cell is tried as a value of every type (`Column::read_cell`). A
//! column has the first type that accepts all of its cells without losing anything, such as leading zeros. The state kept per
//! column is bounded, whatever the file's size.

mod observed;

use std::io::Read;

use encoding_rs::Encoding;
use thiserror::Error;

use self::observed::ObservedColumn;
use super::column::cell::DecimalMark;
use super::csv::without_other_quotes;
use super::naming::Names;
use super::sketch::Sketch;
use crate::csv::cells::Cells;
use crate::csv::fault::{Fault, Location, Malformed};
use crate::csv::file;
use crate::csv::splitter::Sink;

/// Why no description can be inferred.
#[derive(Debug, Error)]
pub enum InferError {
    /// The text is not CSV.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Columns cannot be distinguished; one sentence each.
    #[error("{}", .0.join("; "))]
    Header(Vec<String>),
    /// A value that no column type accepts.
    #[error("line {line}, column {column}: {rule}")]
    Value {
        /// The line on which the row starts, counted from 1.
        line: u64,
        /// The column's header.
        column: String,
        /// What the value must be.
        rule: &'static str,
    },
    /// The file has no rows.
    #[error("it has no rows from which to infer the columns; add some, or use `pycrudapi resource new`")]
    Empty,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] std::io::Error),
}

/// Infers the description of a resource; `source` is the name of the file in its comments.
///
/// # Errors
/// [`InferError`].
pub fn infer(
    name: &str,
    source: &str,
    input: impl Read,
    encoding: Option<&'static Encoding>,
) -> Result<Sketch, InferError> {
    let mut survey = Survey { names: Names::new(name), columns: None, mark: None, rows: 0 };
    file::read(input, encoding, &mut survey, |_, _| true)?;
    let Survey { columns: Some(columns), rows: rows @ 1.., .. } = &mut survey else { return Err(InferError::Empty) };
    agree(columns);
    let rows = counted(*rows, "row");
    let mut comments = vec![
        format!("Inferred from {source}: {rows}. Each type fits every value of its column; ranges are left open."),
        "When this is correct, run `pycrudapi resource check` on this file, start the service and import the rows."
            .to_owned(),
    ];
    if columns.iter().all(|column| column.header.parse::<f64>().is_ok()) {
        comments.push("The header consists of numbers. If it is a row, add a header to the file.".to_owned());
    }
    if columns.iter().any(|column| column.is_key) {
        comments.push("The column uuid is omitted, because every resource has this key.".to_owned());
    }
    let described = columns.iter().filter(|column| !column.is_key && column.unnamed.is_none());
    let columns = described.map(ObservedColumn::describe).collect();
    Ok(Sketch { name: name.to_owned(), comments, columns, ..Sketch::default() })
}

/// State of reading a file.
struct Survey<'a> {
    names: Names<'a>,
    columns: Option<Vec<ObservedColumn>>,
    /// The first column of numbers so far that has a decimal mark, which `import` requires in all of them.
    mark: Option<(usize, DecimalMark)>,
    rows: u64,
}

impl Sink for Survey<'_> {
    type Error = InferError;

    fn fits(&self, _: &Cells) -> bool {
        true
    }

    fn record(&mut self, record: &Cells) -> Result<(), InferError> {
        let Some(columns) = &mut self.columns else {
            without_other_quotes(record).map_err(|fault| InferError::Header(vec![fault]))?;
            let names = self.names.of(record).map_err(InferError::Header)?;
            self.columns =
                Some(record.texts().zip(names).map(|(header, name)| ObservedColumn::new(header, name)).collect());
            return Ok(());
        };
        if record.texts().all(|text| text.trim().is_empty()) {
            return Ok(()); // import skips it, too
        }
        let (expected, found) = (columns.len(), record.count());
        if expected != found {
            let fault = Fault::Width { expected, found };
            return Err(Malformed { line: record.line(), location: Location::Record, fault }.into());
        }
        self.rows += 1;
        for (index, cell) in record.iter().enumerate() {
            columns[index].observe(cell, record, self.mark)?;
            match self.mark {
                None => self.mark = columns[index].decimal_mark().map(|mark| (index, mark)),
                Some((holder, _)) if !columns[holder].is_number() => self.mark = first_mark(columns),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The column of numbers that determined its decimal mark first, with the mark.
fn first_mark(columns: &[ObservedColumn]) -> Option<(usize, DecimalMark)> {
    let marked = columns.iter().enumerate().filter_map(|(index, column)| Some((index, column.decimal_mark()?)));
    marked.min_by_key(|(index, _)| (columns[*index].mark_line, *index))
}

/// Makes texts of the columns of numbers that have another decimal mark than the first one, or took theirs from a column that
/// does not consist of numbers.
fn agree(columns: &mut [ObservedColumn]) {
    let mark = first_mark(columns).map(|(_, mark)| mark);
    let are_numbers: Vec<bool> = columns.iter().map(ObservedColumn::is_number).collect();
    for column in columns {
        let is_alone = column.lender.is_some_and(|lender| !are_numbers[lender]);
        if is_alone || column.decimal_mark().is_some_and(|own| Some(own) != mark) {
            column.refuse_numbers();
        }
    }
}

/// A count with its noun: `1 row`, `2 rows`.
pub fn counted(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}
