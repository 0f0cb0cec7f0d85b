//! Writes rows as CSV or, when that is not asked for, as JSON, a batch at a time.
//!
//! CSV follows RFC 4180, its header always present. A cell that a spreadsheet would take for a formula gets an
//! apostrophe in front, which makes it text (OWASP, "CSV Injection"); nothing else is changed.

use std::borrow::Cow;

use serde::Serialize;

use super::model::{Duration, Step, Summary, text_of};
use crate::http::csv;
use crate::http::format::Format;

/// A row of an answer.
pub trait Row: Serialize {
    /// The key of the rows in JSON.
    const NAME: &'static str;
    /// The columns in CSV.
    const COLUMNS: &'static [&'static str];

    /// The cells in CSV, in the order of the columns; texts as they are.
    fn cells(&self) -> Vec<Cow<'_, str>>;
}

/// Writes what comes before the first row.
pub fn begin<R: Row>(format: Format, out: &mut Vec<u8>) {
    if format == Format::Csv {
        return write_csv(out, [R::COLUMNS.iter().map(|name| Cow::Borrowed(*name)).collect()]);
    }
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(R::NAME.as_bytes());
    out.extend_from_slice(b"\":[");
}

/// Writes rows; `first` when none came before them.
pub fn rows<R: Row>(format: Format, first: bool, rows: &[R], out: &mut Vec<u8>) {
    if format == Format::Csv {
        return write_csv(out, rows.iter().map(Row::cells));
    }
    for (index, row) in rows.iter().enumerate() {
        if index > 0 || !first {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, row).expect("our types have string keys only");
    }
}

/// Writes what comes after the last row.
pub fn end(format: Format, out: &mut Vec<u8>) {
    if format != Format::Csv {
        out.extend_from_slice(b"]}");
    }
}

fn write_csv<'a>(out: &mut Vec<u8>, records: impl IntoIterator<Item = Vec<Cow<'a, str>>>) {
    for record in records {
        for (index, cell) in record.into_iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            csv::cell(&defused(cell), out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A cell that no spreadsheet takes for a formula.
fn defused(cell: Cow<'_, str>) -> Cow<'_, str> {
    // The wide forms are what some spreadsheets take for the narrow ones.
    const DANGEROUS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if cell.starts_with(DANGEROUS) { Cow::Owned(format!("'{cell}")) } else { cell }
}

impl Row for Step<'_> {
    const NAME: &'static str = "steps";
    const COLUMNS: &'static [&'static str] = &["id", "ts", "component", "version", "owner", "status"];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        vec![
            self.id.to_string().into(),
            text_of(self.ts).to_string().into(),
            self.component.into(),
            self.version.into(),
            self.owner.into(),
            self.status.into(),
        ]
    }
}

impl Row for Duration<'_> {
    const NAME: &'static str = "durations";
    const COLUMNS: &'static [&'static str] =
        &["id", "component", "version", "status", "owner", "start", "end", "duration_seconds"];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        vec![
            self.id.to_string().into(),
            self.component.into(),
            self.version.into(),
            self.status.into(),
            self.owner.into(),
            text_of(self.start).to_string().into(),
            self.end.map(|end| text_of(end).to_string()).unwrap_or_default().into(),
            seconds(self.duration_seconds),
        ]
    }
}

impl Row for Summary<'_> {
    const NAME: &'static str = "summary";
    const COLUMNS: &'static [&'static str] = &["status", "count", "finished", "median", "p95"];

    fn cells(&self) -> Vec<Cow<'_, str>> {
        vec![
            self.status.into(),
            self.count.to_string().into(),
            self.finished.to_string().into(),
            seconds(self.median),
            seconds(self.p95),
        ]
    }
}

/// Seconds with microseconds, never in scientific notation; empty when unknown.
fn seconds(value: Option<f64>) -> Cow<'static, str> {
    value.map(|seconds| format!("{seconds:.6}")).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn csv_of(step: &Step<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        begin::<Step<'_>>(Format::Csv, &mut out);
        rows(Format::Csv, true, std::slice::from_ref(step), &mut out);
        end(Format::Csv, &mut out);
        out
    }

    fn step(text: &str) -> Step<'_> {
        Step { id: 7, ts: Timestamp::UNIX_EPOCH, component: text, version: "1", owner: text, status: "s" }
    }

    #[test]
    fn formulas_are_defused_and_cells_are_quoted_as_rfc_4180_says() {
        let head = "id,ts,component,version,owner,status\r\n7,1970-01-01T00:00:00.000000Z,";
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
            let written = String::from_utf8(csv_of(&step(text))).expect("UTF-8");
            assert_eq!(written, format!("{head}{cell},1,{cell},s\r\n"));
        }
    }

    proptest! {
        #[test]
        fn cells_read_back_as_written_but_for_the_apostrophe(text in "[=+@\t\r\n'\" ,;-]{0,2}[^\u{0}]{0,20}") {
            let step = step(&text);
            let written = csv_of(&step);
            let mut reader = ::csv::Reader::from_reader(written.as_slice());
            prop_assert_eq!(reader.headers().expect("a header"), Step::COLUMNS);
            let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("valid CSV");
            prop_assert_eq!(records.len(), 1);
            prop_assert_eq!(records[0].len(), Step::COLUMNS.len());
            for (cell, original) in records[0].iter().zip(step.cells()) {
                prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']));
                let same = cell == original || cell.strip_prefix('\'') == Some(original.as_ref());
                prop_assert!(same, "{:?} was written as {:?}", original, cell);
                if !original.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
                    prop_assert_eq!(cell, original.as_ref());
                }
            }
        }
    }
}
