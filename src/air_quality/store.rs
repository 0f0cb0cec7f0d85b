//! The SQL statements of requests on air quality.
//!
//! Readings and their generation are read in one statement from one snapshot, so a response is never labelled with a generation
//! whose readings it does not contain.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::model::{MEASURES, Reading, Selection};
use crate::db::error::StoreError;
use crate::db::listen::Topic;
use crate::db::operation::DbOperation;
use crate::db::planner::Planner;
use crate::db::pool::Pool;
use crate::db::reads::Reader;
use crate::db::session::{Param, Query};

/// Maximum number of readings in a response: about 14 MB of JSON, ten stations every quarter of an hour for a hundred days.
pub const READINGS_MAX: usize = 100_000;

// Each row includes the generation; if no reading matches, a row of nulls does. Absent bounds are infinite, so that each
// statement has one plan, which can use the index.
const ALL: &str = "select g.generation, a.id_entity, a.measured_at, a.so2, a.no2, a.co, a.o3, a.pm10, a.pm2_5 \
     from air_quality_generation g left join air_quality a \
     on a.measured_at >= coalesce($1, '-infinity'::timestamptz) and a.measured_at < coalesce($2, 'infinity'::timestamptz) \
     order by a.id_entity, a.measured_at limit $3";

/// The readings are limited in key order, so that the key's index is used whatever the size of the table when this was planned.
const OF_ENTITIES: &str = "select g.generation, a.id_entity, a.measured_at, a.so2, a.no2, a.co, a.o3, a.pm10, a.pm2_5 \
     from air_quality_generation g left join ( \
         select * from air_quality where id_entity = any($4) \
         and measured_at >= coalesce($1, '-infinity'::timestamptz) and measured_at < coalesce($2, 'infinity'::timestamptz) \
         order by id_entity, measured_at limit $3 \
     ) a on true order by a.id_entity, a.measured_at";

const GENERATION: &str = "select generation from air_quality_generation";

static LIST: DbOperation = DbOperation::new("list", "air-quality");
static READ_GENERATION: DbOperation = DbOperation::new("generation", "air-quality");

/// The notification that the readings have changed.
pub const CHANGES: Topic =
    Topic { listen: "listen air_quality_changed", table: "air_quality_generation", current: GENERATION };

/// Readings and their generation.
#[derive(Debug)]
pub struct Readings {
    /// The generation of the table.
    pub generation: Uuid,
    /// The readings, by station and time; [`reading`] converts a row.
    pub rows: Vec<Row>,
}

/// Reads the readings of a selection; one more than [`READINGS_MAX`] if there are more.
///
/// # Errors
/// The pool's.
pub async fn readings(reader: &Reader, selection: &Selection) -> Result<Readings, StoreError> {
    let limit = i64::try_from(READINGS_MAX + 1).expect("a small number");
    let (from, to) = (&selection.from, &selection.to);
    let mut rows = if selection.entities.is_empty() {
        let params: [(Param<'_>, Type); 3] = [(from, Type::TIMESTAMPTZ), (to, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        reader.collect(&LIST, Query::Once(Planner::Free, ALL, &params)).await?
    } else {
        reader.read(&LIST, OF_ENTITIES, &[from, to, &limit, &selection.entities]).await?
    };
    let first = rows.first().ok_or(StoreError::Missing)?;
    let generation = first.try_get(0)?;
    if first.try_get::<_, Option<&str>>(1)?.is_none() {
        rows.clear();
    }
    Ok(Readings { generation, rows })
}

/// Reads the current generation.
///
/// # Errors
/// The pool's.
pub async fn generation(pool: &Pool) -> Result<Uuid, StoreError> {
    let rows = pool.read(&READ_GENERATION, GENERATION, &[]).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// Converts a row of [`readings`].
///
/// # Errors
/// [`StoreError::Internal`] when the columns are not those of the table.
pub fn reading(row: &Row) -> Result<Reading<'_>, StoreError> {
    let mut values = [None; MEASURES.len()];
    for (index, value) in values.iter_mut().enumerate() {
        *value = row.try_get(3 + index)?;
    }
    Ok(Reading { entity: row.try_get(1)?, at: row.try_get(2)?, values })
}
