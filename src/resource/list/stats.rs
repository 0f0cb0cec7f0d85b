//! Statistics over rows, as JSON.

use serde_json::value::{Map, Value as Json};
use tokio_postgres::Row;

use super::super::column::Column;
use super::super::definition::{Function, Resource};
use super::super::value::{Raw, Value};
use crate::db::error::StoreError;

/// Converts a row of statistics grouped by these columns: their values, the number of rows, and the measures.
///
/// # Errors
/// [`StoreError::Internal`] for other columns, [`StoreError::Unreadable`] for a value that the rules of its column do not
/// allow.
pub fn group(resource: &Resource, row: &Row, by: &[&Column]) -> Result<Map<String, Json>, StoreError> {
    let mut group = Map::new();
    for (index, column) in by.iter().enumerate() {
        let Raw(raw) = row.try_get(index)?;
        let value = match column.decode(raw).map_err(|error| StoreError::Unreadable { column: error.column })? {
            Value::Null => Json::Null,
            Value::Boolean(value) => value.into(),
            Value::Integer(value) => value.into(),
            // The only texts to group by are enumerations.
            other => other.to_string().into(),
        };
        group.insert(column.name.to_owned(), value);
    }
    group.insert("count".to_owned(), row.try_get::<_, i64>(by.len())?.into());
    for (index, measure) in resource.statistics.iter().flat_map(|statistics| &statistics.measures).enumerate() {
        let column_index = by.len() + 1 + index;
        let value = match measure.function {
            Function::Count => row.try_get::<_, i64>(column_index)?.into(),
            _ => row.try_get::<_, Option<f64>>(column_index)?.into(),
        };
        group.insert(measure.key.to_owned(), value);
    }
    Ok(group)
}
