//! Writes passengers in the form that the client likes best: JSON, CSV or one JSON object per line.
//!
//! CSV is what `export` writes and `import` takes: a name is written as it stands, and quoted where RFC 4180 says so.

use warp::http::HeaderMap;

use super::super::model::{Field, Passenger};
use super::column::Column;
use crate::http::accept::negotiate;
use crate::http::body::{CSV, JSON, NDJSON};
use crate::http::problem::Problem;

/// The forms of a list, as the client names them.
const OFFERED: &[&str] = &[JSON, CSV, NDJSON];

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One array.
    Json,
    /// A header and one line per passenger.
    Csv,
    /// One object per line.
    Ndjson,
}

impl Format {
    /// The one that the client likes best; JSON when it does not say.
    ///
    /// # Errors
    /// 406 when it takes none of them.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(match negotiate(headers, OFFERED)? {
            CSV => Self::Csv,
            NDJSON => Self::Ndjson,
            _ => Self::Json,
        })
    }

    /// The header `Content-Type` (RFC 4180, section 3, for CSV).
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => NDJSON,
        }
    }
}

/// The form of a list and the columns in it.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The form.
    pub format: Format,
    /// The columns, in the order they were asked for; all when absent.
    pub columns: Option<Vec<Column>>,
}

impl Shape {
    fn columns(&self) -> &[Column] {
        self.columns.as_deref().unwrap_or(&Column::ALL)
    }

    /// Writes what comes before the first row.
    pub fn begin(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => out.push(b'['),
            Format::Csv => {
                let names: Vec<&str> = self.columns().iter().copied().map(Column::name).collect();
                out.extend_from_slice(names.join(",").as_bytes());
                out.push(b'\n');
            }
            Format::Ndjson => {}
        }
    }

    /// Writes a row; `first` when none came before it.
    pub fn row(&self, first: bool, passenger: &Passenger<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => {
                if !first {
                    out.push(b',');
                }
                self.object(passenger, out);
            }
            Format::Csv => self.line(passenger, out),
            Format::Ndjson => {
                self.object(passenger, out);
                out.push(b'\n');
            }
        }
    }

    /// Writes what comes after the last row.
    pub fn end(&self, out: &mut Vec<u8>) {
        if self.format == Format::Json {
            out.push(b']');
        }
    }

    fn object(&self, passenger: &Passenger<'_>, out: &mut Vec<u8>) {
        let Some(columns) = &self.columns else { return passenger.write_json(out) };
        out.push(b'{');
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(column.name().as_bytes());
            out.extend_from_slice(b"\":");
            let details = &passenger.details;
            match column {
                Column::Uuid => json(&passenger.uuid, out),
                Column::Field(Field::Survived) => json(&details.survived, out),
                Column::Field(Field::PassengerClass) => json(&details.passenger_class, out),
                Column::Field(Field::Name) => json(&details.name, out),
                Column::Field(Field::Sex) => json(&details.sex, out),
                Column::Field(Field::Age) => json(&details.age, out),
                Column::Field(Field::SiblingsOrSpousesAboard) => json(&details.siblings_or_spouses_aboard, out),
                Column::Field(Field::ParentsOrChildrenAboard) => json(&details.parents_or_children_aboard, out),
                Column::Field(Field::Fare) => json(&details.fare, out),
            }
        }
        out.push(b'}');
    }

    fn line(&self, passenger: &Passenger<'_>, out: &mut Vec<u8>) {
        let details = &passenger.details;
        let start = out.len();
        for (index, column) in self.columns().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match column {
                Column::Uuid => {
                    out.extend_from_slice(passenger.uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
                }
                Column::Field(Field::Survived) => json(&details.survived, out),
                Column::Field(Field::PassengerClass) => json(&details.passenger_class, out),
                Column::Field(Field::Name) => cell(&details.name, out),
                Column::Field(Field::Sex) => out.extend_from_slice(details.sex.as_str().as_bytes()),
                Column::Field(Field::Age) => {
                    if let Some(age) = details.age {
                        number(age, out);
                    }
                }
                Column::Field(Field::SiblingsOrSpousesAboard) => json(&details.siblings_or_spouses_aboard, out),
                Column::Field(Field::ParentsOrChildrenAboard) => json(&details.parents_or_children_aboard, out),
                Column::Field(Field::Fare) => number(details.fare, out),
            }
        }
        if out.len() == start {
            out.extend_from_slice(b"\"\""); // readers pass over an empty line; an unknown age alone in its row is no such
        }
        out.push(b'\n');
    }
}

fn json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a vector takes everything");
}

/// A double as PostgreSQL writes it: no fraction where there is none.
fn number(value: f64, out: &mut Vec<u8>) {
    json(&value, out);
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// A text, in quotes where it would be taken for more than one cell or line.
fn cell(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"', '\n', '\r']) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::csv::Header;
    use super::super::super::model::arbitrary;
    use super::*;

    fn written(format: Format, columns: Option<Vec<Column>>, rows: &[Passenger<'_>]) -> Vec<u8> {
        let shape = Shape { format, columns };
        let mut out = Vec::new();
        shape.begin(&mut out);
        for (index, row) in rows.iter().enumerate() {
            shape.row(index == 0, row, &mut out);
        }
        shape.end(&mut out);
        out
    }

    proptest! {
        #[test]
        fn csv_is_imported_as_it_was_listed(rows in prop::collection::vec(arbitrary::passenger(), 0..4)) {
            let csv = written(Format::Csv, None, &rows);
            let mut reader = csv::Reader::from_reader(csv.as_slice());
            let header = Header::read(reader.headers().expect("a header")).expect("our own header");
            let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("valid CSV");
            let read: Vec<_> = records.iter().map(|row| header.passenger(row).expect("it breaks no rule")).collect();
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn every_form_holds_the_selected_columns(
            rows in prop::collection::vec(arbitrary::passenger(), 1..4),
            columns in prop::sample::subsequence(Column::ALL.to_vec(), 1..=9).prop_shuffle(),
        ) {
            let json: Vec<serde_json::Value> =
                serde_json::from_slice(&written(Format::Json, Some(columns.clone()), &rows)).expect("JSON");
            let lines = written(Format::Ndjson, Some(columns.clone()), &rows);
            let lines: Vec<serde_json::Value> = std::str::from_utf8(&lines).expect("UTF-8").lines()
                .map(|line| serde_json::from_str(line).expect("JSON")).collect();
            prop_assert_eq!(&json, &lines);
            for (object, row) in json.iter().zip(&rows) {
                // By way of text as well, because reading may round a number.
                let whole = serde_json::to_vec(row).expect("serialised");
                let whole: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
                prop_assert_eq!(object.as_object().expect("an object").len(), columns.len());
                for column in &columns {
                    prop_assert_eq!(&object[column.name()], &whole[column.name()]);
                }
            }
            let csv = written(Format::Csv, Some(columns.clone()), &rows);
            let mut reader = csv::Reader::from_reader(csv.as_slice());
            let header = reader.headers().expect("a header").clone();
            prop_assert_eq!(header.iter().collect::<Vec<_>>(), columns.iter().map(|c| c.name()).collect::<Vec<_>>());
            prop_assert_eq!(reader.records().count(), rows.len());
        }
    }
}
