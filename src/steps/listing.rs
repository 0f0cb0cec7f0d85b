//! The lists of steps: their columns, and serialising their rows as CSV or JSON, a batch at a time.
//!
//! CSV follows RFC 4180 and always has a header. A cell that a spreadsheet would interpret as a formula is prefixed with an
//! apostrophe, which makes it text (OWASP, "CSV Injection"); nothing else is changed.

use std::io::Write;
use std::sync::LazyLock;

use serde::Deserialize;
use tokio_postgres::Row;

use crate::db::error::StoreError;
use crate::http::csv;
use crate::http::format::Format;
use crate::resource::column::Column;
use crate::resource::description::ColumnDescription;
use crate::resource::row;
use crate::resource::value::Value;

/// A list.
#[derive(Debug)]
pub struct Listing {
    /// The JSON member that contains its rows.
    pub name: String,
    /// The name of a row's schema in the OpenAPI document.
    pub schema: String,
    /// The description of a row.
    pub description: String,
    /// The columns, in the order of JSON keys, CSV columns, and the columns of the statements.
    pub columns: Vec<Column>,
}

/// Steps.
pub static STEPS: LazyLock<Listing> = LazyLock::new(|| load(0));
/// Durations of steps.
pub static DURATIONS: LazyLock<Listing> = LazyLock::new(|| load(1));
/// Durations per status.
pub static SUMMARY: LazyLock<Listing> = LazyLock::new(|| load(2));

fn load(index: usize) -> Listing {
    #[derive(Deserialize)]
    struct File {
        list: Vec<Description>,
    }
    #[derive(Deserialize)]
    struct Description {
        name: String,
        schema: String,
        description: String,
        column: Vec<ColumnDescription>,
    }
    let mut file: File = toml::from_str(include_str!("columns.toml")).expect("a test reads it");
    let Description { name, schema, description, column } = file.list.swap_remove(index);
    let columns = column.iter().enumerate().map(|(position, column)| Column::new(position, column));
    Listing { name, schema, description, columns: columns.collect::<Result<_, _>>().expect("a test reads them") }
}

impl Listing {
    /// Writes what comes before the first row.
    pub fn begin(&self, format: Format, out: &mut Vec<u8>) {
        if format == Format::Csv {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
            out.extend_from_slice(names.join(",").as_bytes());
            out.extend_from_slice(b"\r\n");
        } else {
            out.push(b'{');
            self.begin_member(out);
        }
    }

    fn begin_member(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b"\":[");
    }

    /// Writes all rows as a member of an object.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn member(&self, rows: &[Row], out: &mut Vec<u8>) -> Result<(), StoreError> {
        self.begin_member(out);
        self.rows(Format::Json, true, rows, out)?;
        out.push(b']');
        Ok(())
    }

    /// Writes rows; `first` if they are the first.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] for a value that the rules of its column do not allow.
    pub fn rows(&self, format: Format, first: bool, rows: &[Row], out: &mut Vec<u8>) -> Result<(), StoreError> {
        for (index, row) in rows.iter().enumerate() {
            if format == Format::Csv {
                let values = self.columns.iter().map(|column| row::value(row, column));
                write_line(&values.collect::<Result<Vec<_>, _>>()?, out);
                continue;
            }
            if index > 0 || !first {
                out.push(b',');
            }
            row::write_row(&self.columns, row, out)?;
        }
        Ok(())
    }

    /// Writes what comes after the last row.
    pub fn end(format: Format, out: &mut Vec<u8>) {
        if format != Format::Csv {
            out.extend_from_slice(b"]}");
        }
    }
}

/// Writes a CSV record.
pub(super) fn write_line(values: &[Value<'_>], out: &mut Vec<u8>) {
    for (index, value) in values.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        match value {
            Value::Text(text) => write_text(text, out),
            // Seconds with microseconds, never in scientific notation.
            Value::Number(seconds) => write!(out, "{seconds:.6}").expect("writing to a vector cannot fail"),
            other => other.write_csv(out),
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a cell that no spreadsheet interprets as a formula.
fn write_text(text: &str, out: &mut Vec<u8>) {
    // Some spreadsheets treat full-width forms like ASCII.
    const DANGEROUS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if text.starts_with(DANGEROUS) { csv::cell(&format!("'{text}"), out) } else { csv::cell(text, out) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> String {
        let mut out = Vec::new();
        write_line(&[Value::Integer(7), Value::Text(text.into()), Value::Number(4.5), Value::Null], &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn formulas_are_defused_and_cells_are_quoted_as_rfc_4180_says() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("a=1", "a=1"),
            ("'quoted", "'quoted"),
            ("a,b", "\"a,b\""),
            ("a\nb", "\"a\nb\""),
            ("ż☃", "ż☃"),
        ] {
            assert_eq!(line(text), format!("7,{cell},4.500000,\r\n"));
        }
    }

    #[test]
    fn the_columns_are_those_that_are_documented() {
        for (list, name, header) in [
            (&STEPS, "steps", "id,ts,component,version,owner,status\r\n"),
            (&DURATIONS, "durations", "id,component,version,status,owner,start,end,duration_seconds\r\n"),
            (&SUMMARY, "summary", "status,count,finished,median,p95\r\n"),
        ] {
            let mut out = Vec::new();
            list.begin(Format::Csv, &mut out);
            assert_eq!((list.name.as_str(), String::from_utf8_lossy(&out).as_ref()), (name, header));
        }
    }

    proptest! {
        #[test]
        fn cells_read_back_as_written_but_for_the_apostrophe(text in "[=+@\t\r\n'\" ,;-]{0,2}[^\u{0}]{1,20}") {
            let written = line(&text);
            let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(written.as_bytes());
            let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("valid CSV");
            prop_assert_eq!((records.len(), records[0].len()), (1, 4));
            let cell = &records[0][1];
            let is_dangerous = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
            prop_assert_eq!(cell.strip_prefix('\'').filter(|_| is_dangerous).unwrap_or(cell), &text);
            prop_assert_eq!(cell.starts_with('\''), is_dangerous || text.starts_with('\''));
        }
    }
}
