//! Readings as CSV rows: the headers that are accepted, and how a row becomes a reading.
//!
//! Accepted headers, in any order of columns: `timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5`, and the same with
//! `TimeInstant`, as the stations' own export has it. A fault names the line, the column and the rule.

use csv::StringRecord;

use super::model::{ENTITY_RULE, MEASURES, Reading, TIME_RULE, VALUE_RULE, check_entity, check_time, check_value};
use crate::db::copy::TableError;
use crate::db::records::line_of;

/// The header as a person would write it.
const EXPECTED: &str = "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5 (or TimeInstant instead of timestamp)";

/// Where each column stands in the file's rows.
#[derive(Debug)]
pub struct Header {
    names: Vec<String>,
    timestamp: usize,
    entity: usize,
    values: [usize; MEASURES.len()],
}

impl Header {
    /// Finds the columns in a header row.
    ///
    /// # Errors
    /// When a column is unknown, doubled or missing.
    pub fn read(record: &StringRecord) -> Result<Self, TableError> {
        let fault = |fault: String| TableError::Header { line: line_of(record), fault, expected: EXPECTED };
        let (mut timestamp, mut entity, mut values) = (None, None, [None; MEASURES.len()]);
        for (index, name) in record.iter().enumerate() {
            let key = name.trim_start_matches('\u{feff}').trim().to_ascii_lowercase();
            let slot = match key.as_str() {
                "timestamp" | "timeinstant" => &mut timestamp,
                "id_entity" => &mut entity,
                key => match MEASURES.iter().position(|measure| *measure == key) {
                    Some(measure) => &mut values[measure],
                    None => return Err(fault(format!("unknown column {name:?}"))),
                },
            };
            if slot.replace(index).is_some() {
                return Err(fault(format!("duplicate column {name:?}")));
            }
        }
        let missing = |name: &str| fault(format!("missing column {name:?}"));
        let mut places = [0; MEASURES.len()];
        for (measure, place) in places.iter_mut().enumerate() {
            *place = values[measure].ok_or_else(|| missing(MEASURES[measure]))?;
        }
        Ok(Self {
            names: record.iter().map(str::to_owned).collect(),
            timestamp: timestamp.ok_or_else(|| missing("timestamp"))?,
            entity: entity.ok_or_else(|| missing("id_entity"))?,
            values: places,
        })
    }

    /// Reads a row.
    ///
    /// # Errors
    /// The first value that breaks its column's rule.
    pub fn reading<'a>(&self, record: &'a StringRecord) -> Result<Reading<'a>, TableError> {
        let line = line_of(record);
        let text = |index: usize| record.get(index).unwrap_or_default().trim();
        let fault = |index: usize, rule| TableError::Value { line, column: self.names[index].clone(), rule };
        let at = check_time(text(self.timestamp)).ok_or_else(|| fault(self.timestamp, TIME_RULE))?;
        let entity = check_entity(text(self.entity)).ok_or_else(|| fault(self.entity, ENTITY_RULE))?;
        let mut values = [None; MEASURES.len()];
        for (value, index) in values.iter_mut().zip(self.values) {
            let text = text(index);
            if !text.is_empty() {
                let number = text.parse().ok().and_then(check_value);
                *value = Some(number.ok_or_else(|| fault(index, VALUE_RULE))?);
            }
        }
        Ok(Reading { entity, at, values })
    }
}
