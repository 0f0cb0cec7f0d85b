//! Readings as CSV: the columns of a file, and converting a record to a reading.
//!
//! Headers are `timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5` in any order, case and punctuation; `TimeInstant` is an alias of
//! `timestamp`, used by the stations' own export. An error names the line, the column and the rule.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::model::{ENTITY_RULE, MEASURES, Reading, check_entity, check_time, check_value};
use crate::csv::cells::Cells;
use crate::csv::notes::UnknownColumns;
use crate::db::copy::TableError;
use crate::resource::column::Column;
use crate::resource::csv::Header;
use crate::resource::description::ColumnDescription;
use crate::resource::value::Value;

/// The expected header, for messages.
const EXPECTED: &str = "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5 (or TimeInstant instead of timestamp)";

/// Times and stations are texts here; `model` validates them.
static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let text = |name: &str, csv: &[&str]| ColumnDescription {
        name: name.to_owned(),
        r#type: "string".to_owned(),
        min_length: Some(1),
        max_length: Some(1000),
        csv: csv.iter().map(|name| (*name).to_owned()).collect(),
        ..ColumnDescription::default()
    };
    let number = |name: &str| ColumnDescription {
        name: name.to_owned(),
        r#type: "number".to_owned(),
        nullable: true,
        required: Some(true),
        ..ColumnDescription::default()
    };
    let texts = [text("timestamp", &["TimeInstant"]), text("id_entity", &[])].into_iter();
    let columns = texts.chain(MEASURES.map(number)).enumerate();
    columns.map(|(position, column)| Column::new(position, &column).expect("it has no fault")).collect()
});

/// Locates the columns in a header record.
///
/// # Errors
/// When a column is unknown, a duplicate or missing.
pub fn header(record: &Cells, unknown: UnknownColumns) -> Result<Header, TableError> {
    Header::read(&COLUMNS, EXPECTED, record, unknown)
}

/// Reads a record; `None` for one without values.
///
/// # Errors
/// The first value that breaks its column's rule.
pub fn reading<'a>(header: &mut Header, record: &'a Cells) -> Result<Option<Reading<'a>>, TableError> {
    let Some(values) = header.values(record)? else { return Ok(None) };
    let fault = |position: usize, rule: Cow<'static, str>| TableError::Value {
        line: record.line(),
        column: header.name(position).to_owned(),
        rule,
    };
    let mut values = values.into_iter();
    let mut text = || match values.next() {
        Some(Value::Text(Cow::Borrowed(text))) => text,
        _ => "",
    };
    let (at_text, entity_text) = (text(), text());
    let at = check_time(at_text.trim()).map_err(|rule| fault(0, rule.into()))?;
    let entity = check_entity(entity_text.trim()).ok_or_else(|| fault(1, ENTITY_RULE.into()))?;
    header.note_time(at_text.trim());
    let mut measured = [None; MEASURES.len()];
    for (slot, value) in measured.iter_mut().zip(values) {
        if let Value::Number(number) = value {
            *slot = check_value(number);
        }
    }
    Ok(Some(Reading { entity, at, values: measured }))
}
