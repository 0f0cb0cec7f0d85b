//! Every SQL statement that requests run on passengers.
//!
//! Columns are always named: `select *` would break prepared plans when a column is added.

use tokio_postgres::Row;
use uuid::Uuid;

use super::model::{Details, Passenger, check_sex};
use crate::db::error::StoreError;
use crate::db::pool::Pool;

const GET: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid = $1";

const PAGE: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid > $1 order by uuid limit $2";

const CREATE: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
     returning uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare";

const REPLACE: &str = "update passengers set survived = $2, passenger_class = $3, name = $4, sex = $5, age = $6, \
     siblings_or_spouses_aboard = $7, parents_or_children_aboard = $8, fare = $9 where uuid = $1 \
     returning uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare";

const DELETE: &str = "delete from passengers where uuid = $1 returning uuid";

/// One passenger by key.
///
/// # Errors
/// [`StoreError::Missing`] when there is none, or the pool's errors.
pub async fn get(pool: &Pool, uuid: Uuid) -> Result<Row, StoreError> {
    pool.read(GET, &[&uuid]).await?.pop().ok_or(StoreError::Missing)
}

/// The passengers whose keys follow `after`, in key order, at most `limit` of them.
///
/// # Errors
/// The pool's.
pub async fn page(pool: &Pool, after: Uuid, limit: i64) -> Result<Vec<Row>, StoreError> {
    pool.read(PAGE, &[&after, &limit]).await
}

/// Stores a new passenger under a new key and returns it as stored.
///
/// # Errors
/// [`StoreError::Conflict`] when a constraint refuses it, or the pool's.
pub async fn create(pool: &Pool, details: &Details<'_>) -> Result<Row, StoreError> {
    change(pool, CREATE, Uuid::now_v7(), details).await
}

/// Replaces everything of a passenger but its key and returns it as stored.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Conflict`], or the pool's.
pub async fn replace(pool: &Pool, uuid: Uuid, details: &Details<'_>) -> Result<Row, StoreError> {
    change(pool, REPLACE, uuid, details).await
}

async fn change(pool: &Pool, sql: &'static str, uuid: Uuid, details: &Details<'_>) -> Result<Row, StoreError> {
    pool.write(
        sql,
        &[
            &uuid,
            &details.survived,
            &details.passenger_class,
            &details.name.as_ref(),
            &details.sex.as_str(),
            &details.age,
            &details.siblings_or_spouses_aboard,
            &details.parents_or_children_aboard,
            &details.fare,
        ],
    )
    .await?
    .pop()
    .ok_or(StoreError::Missing)
}

/// Removes a passenger.
///
/// # Errors
/// [`StoreError::Missing`] when there is none, or the pool's.
pub async fn delete(pool: &Pool, uuid: Uuid) -> Result<(), StoreError> {
    pool.write(DELETE, &[&uuid]).await?.pop().map(drop).ok_or(StoreError::Missing)
}

/// A row of the statements above as a passenger that borrows the row's text.
///
/// # Errors
/// [`StoreError::Internal`] when the columns are not those of the table.
pub fn passenger(row: &Row) -> Result<Passenger<'_>, StoreError> {
    let read = || {
        Ok(Passenger {
            uuid: row.try_get(0)?,
            details: Details {
                survived: row.try_get(1)?,
                passenger_class: row.try_get(2)?,
                name: row.try_get::<_, &str>(3)?.into(),
                // The table's constraint leaves no third value.
                sex: check_sex(row.try_get(4)?).expect("the constraint passengers_sex holds"),
                age: row.try_get(5)?,
                siblings_or_spouses_aboard: row.try_get(6)?,
                parents_or_children_aboard: row.try_get(7)?,
                fare: row.try_get(8)?,
            },
        })
    };
    read().map_err(StoreError::Internal)
}
