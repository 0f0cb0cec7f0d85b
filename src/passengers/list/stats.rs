//! Statistics over passengers, as rows of JSON.

use serde::Serialize;
use serde_json::value::{Map, Value};
use tokio_postgres::Row;

use super::super::model::Field;
use super::column::Column;
use crate::db::error::StoreError;

/// One group of passengers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The columns that they have in common.
    #[serde(flatten)]
    pub common: Map<String, Value>,
    /// How many they are.
    pub count: i64,
    /// How many of them survived.
    pub survivors: i64,
    /// Survivors among all, 0 to 1; unknown when there is nobody.
    pub survival_rate: Option<f64>,
    /// Over those with a known age.
    pub mean_age: Option<f64>,
    /// In pounds.
    pub mean_fare: Option<f64>,
}

/// Reads a row of statistics that are grouped by these columns.
///
/// # Errors
/// [`StoreError::Internal`] when the columns are others.
pub fn group(row: &Row, by: &[Column]) -> Result<Group, StoreError> {
    let mut common = Map::new();
    for (index, column) in by.iter().enumerate() {
        let value = match column {
            Column::Field(Field::Survived) => row.try_get::<_, bool>(index)?.into(),
            Column::Field(Field::PassengerClass) => row.try_get::<_, i16>(index)?.into(),
            Column::Field(Field::SiblingsOrSpousesAboard | Field::ParentsOrChildrenAboard) => {
                row.try_get::<_, i32>(index)?.into()
            }
            // Of the texts only the sex has few values and may be asked for.
            _ => row.try_get::<_, &str>(index)?.into(),
        };
        common.insert(column.name().to_owned(), value);
    }
    let count = row.try_get(by.len())?;
    let survivors = row.try_get(by.len() + 1)?;
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
    let survival_rate = (count > 0).then(|| survivors as f64 / count as f64);
    Ok(Group {
        common,
        count,
        survivors,
        survival_rate,
        mean_age: row.try_get(by.len() + 2)?,
        mean_fare: row.try_get(by.len() + 3)?,
    })
}
