//! Every SQL statement that requests run on passengers.
//!
//! Operations on single passengers that arrive together are run together (`db::batch`): one query answers all lookups,
//! one transaction holds all writes of a kind, and each write is acknowledged after its commit. A lone operation runs
//! the plain single-row statement. A batch that the database refuses is undone whole and retried row by row, so one bad
//! row never fails its neighbours. Columns are always named: `select *` would break prepared plans when one is added.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_postgres::Row;
use uuid::Uuid;

use super::columns::Columns;
use super::model::{Details, Passenger, check_sex};
use crate::db::batch::{BatchLimits, Batcher};
use crate::db::error::StoreError;
use crate::db::pool::Pool;

const GET: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid = $1";

const GET_MANY: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid = any($1)";

const PAGE: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid > $1 order by uuid limit $2";

const CREATE: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
     returning uuid";

const CREATE_MANY: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) \
     select * from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], $6::float8[], $7::int4[], \
     $8::int4[], $9::float8[]) returning uuid";

const REPLACE: &str = "update passengers set survived = $2, passenger_class = $3, name = $4, sex = $5, age = $6, \
     siblings_or_spouses_aboard = $7, parents_or_children_aboard = $8, fare = $9 where uuid = $1 returning uuid";

const REPLACE_MANY: &str = "update passengers p set survived = d.survived, passenger_class = d.passenger_class, \
     name = d.name, sex = d.sex, age = d.age, siblings_or_spouses_aboard = d.siblings_or_spouses_aboard, \
     parents_or_children_aboard = d.parents_or_children_aboard, fare = d.fare \
     from unnest($1::uuid[], $2::bool[], $3::int2[], $4::text[], $5::text[], $6::float8[], $7::int4[], $8::int4[], \
     $9::float8[]) as d (uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare) where p.uuid = d.uuid returning p.uuid";

const DELETE_MANY: &str = "delete from passengers where uuid = any($1) returning uuid";

/// Most operations in one statement: more than arrive during a round trip at 60,000 requests a second.
const BATCH_SIZE: usize = 128;
/// So many waiting lookups are worth a second statement: with 64 clients on two cores, 58,000 gets a second instead of
/// 54,000. Writes wait for the one before them, because a commit costs more than the rows of a batch.
const SECOND_LOOKUP_FROM: usize = 16;
/// A batch of lookups is filled up to this many keys by repeating one, which PostgreSQL looks up once all the same. Its
/// planner takes any array of unknown length for 10 keys, so a plan made for fewer looks cheaper to it than the plan it
/// has, and it would plan each small batch anew (PostgreSQL 15, `choose_custom_plan` and `estimate_array_length`).
const PLANNED_KEYS: usize = 12;
/// Most statements of one kind at once; more only make smaller batches on a machine of a few cores.
const BATCHES_IN_FLIGHT: usize = 4;
/// Most operations waiting: what a burst on all of nginx's connections can bring.
const QUEUE: usize = 8192;

/// The passengers of one database.
pub struct Store {
    pool: Pool,
    gets: Batcher<Uuid, Bytes>,
    creates: Batcher<Passenger<'static>, Bytes>,
    replaces: Batcher<Passenger<'static>, Bytes>,
    deletes: Batcher<Uuid, ()>,
}

impl Store {
    /// The passengers behind a pool; an operation waits for others at most as long as for a connection.
    pub fn new(pool: &Pool, wait: Duration) -> Self {
        let limits =
            BatchLimits { size: BATCH_SIZE, second_from: BATCH_SIZE, in_flight: BATCHES_IN_FLIGHT, queue: QUEUE, wait };
        let lookup_limits = BatchLimits { second_from: SECOND_LOOKUP_FROM, ..limits };
        let with_pool = || pool.clone();
        let (get, create, replace, delete) = (with_pool(), with_pool(), with_pool(), with_pool());
        Self {
            pool: with_pool(),
            gets: Batcher::new("get", lookup_limits, Box::new(move |keys| get_many(get.clone(), keys).boxed())),
            creates: Batcher::new(
                "create",
                limits,
                Box::new(move |rows| write_many(create.clone(), CREATE, CREATE_MANY, rows).boxed()),
            ),
            replaces: Batcher::new(
                "replace",
                limits,
                Box::new(move |rows| replace_many(replace.clone(), rows).boxed()),
            ),
            deletes: Batcher::new("delete", limits, Box::new(move |keys| delete_many(delete.clone(), keys).boxed())),
        }
    }

    /// One passenger by key, as JSON.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none, or the pool's and the batch's errors.
    pub async fn get(&self, uuid: Uuid) -> Result<Bytes, StoreError> {
        self.gets.submit(uuid).await
    }

    /// The passengers whose keys follow `after`, in key order, at most `limit` of them.
    ///
    /// # Errors
    /// The pool's.
    pub async fn page(&self, after: Uuid, limit: i64) -> Result<Vec<Row>, StoreError> {
        self.pool.read(PAGE, &[&after, &limit]).await
    }

    /// Stores a new passenger under a new key; the key, and the passenger as stored, as JSON.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a constraint refuses it, or the pool's and the batch's errors.
    pub async fn create(&self, details: Details<'_>) -> Result<(Uuid, Bytes), StoreError> {
        let uuid = Uuid::now_v7();
        let stored = self.creates.submit(Passenger { uuid, details: details.into_owned() }).await?;
        Ok((uuid, stored))
    }

    /// Replaces everything of a passenger but its key; the passenger as stored, as JSON.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Conflict`], or the pool's and the batch's errors.
    pub async fn replace(&self, uuid: Uuid, details: Details<'_>) -> Result<Bytes, StoreError> {
        self.replaces.submit(Passenger { uuid, details: details.into_owned() }).await
    }

    /// Removes a passenger.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none, or the pool's and the batch's errors.
    pub async fn delete(&self, uuid: Uuid) -> Result<(), StoreError> {
        self.deletes.submit(uuid).await
    }
}

/// A row of the statements that select every column, as a passenger that borrows the row's text.
///
/// # Errors
/// [`StoreError::Internal`] when the columns are not those of the table.
pub fn passenger(row: &Row) -> Result<Passenger<'_>, StoreError> {
    let read = || -> Result<_, tokio_postgres::Error> {
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
    read().map_err(StoreError::from)
}

/// The same failure for every item of a batch.
fn all_failed<O>(count: usize, error: &StoreError) -> Vec<Result<O, StoreError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

async fn get_many(pool: Pool, mut keys: Vec<Uuid>) -> Vec<Result<Bytes, StoreError>> {
    let asked = keys.len();
    let rows = match keys.as_slice() {
        [key] => pool.read(GET, &[key]).await,
        [first, ..] => {
            let first = *first;
            keys.resize(asked.max(PLANNED_KEYS), first);
            pool.read(GET_MANY, &[&keys]).await
        }
        [] => return Vec::new(),
    };
    match rows.and_then(|rows| Documents::of(&rows)) {
        Ok(documents) => keys[..asked].iter().map(|key| documents.get(*key).ok_or(StoreError::Missing)).collect(),
        Err(error) => all_failed(asked, &error),
    }
}

/// The rows of a batch as JSON, in one buffer that all answers share.
struct Documents {
    buffer: Bytes,
    places: HashMap<Uuid, Range<usize>>,
}

impl Documents {
    fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let mut buffer = Vec::with_capacity(rows.len() * Passenger::JSON_BYTES);
        let mut places = HashMap::with_capacity(rows.len());
        for row in rows {
            let passenger = passenger(row)?;
            let start = buffer.len();
            passenger.write_json(&mut buffer);
            places.insert(passenger.uuid, start..buffer.len());
        }
        Ok(Self { buffer: buffer.into(), places })
    }

    fn get(&self, key: Uuid) -> Option<Bytes> {
        self.places.get(&key).map(|place| self.buffer.slice(place.clone()))
    }
}

/// Runs a write for all rows in one statement, or one by one where the database undid that; rows have distinct keys.
async fn write_many(
    pool: Pool,
    one: &'static str,
    many: &'static str,
    rows: Vec<Passenger<'static>>,
) -> Vec<Result<Bytes, StoreError>> {
    if rows.len() > 1 {
        let columns = Columns::of(&rows);
        match pool.write(many, &columns.params()).await {
            Ok(written) => {
                let written: Vec<Uuid> = written.iter().map(|row| row.get(0)).collect();
                let outcome = |row: &Passenger| {
                    if written.contains(&row.uuid) { Ok(document(row)) } else { Err(StoreError::Missing) }
                };
                return rows.iter().map(outcome).collect();
            }
            Err(error) if error.is_rolled_back() => {}
            Err(error) => return all_failed(rows.len(), &error),
        }
    }
    let mut outcomes = Vec::with_capacity(rows.len());
    for row in &rows {
        outcomes.push(write_one(&pool, one, row).await);
    }
    outcomes
}

async fn write_one(pool: &Pool, sql: &'static str, row: &Passenger<'_>) -> Result<Bytes, StoreError> {
    let details = &row.details;
    let written = pool
        .write(
            sql,
            &[
                &row.uuid,
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
        .await?;
    if written.is_empty() { Err(StoreError::Missing) } else { Ok(document(row)) }
}

/// A passenger as it was just written; no column has a default and no trigger changes one.
fn document(passenger: &Passenger<'_>) -> Bytes {
    let mut buffer = Vec::with_capacity(Passenger::JSON_BYTES);
    passenger.write_json(&mut buffer);
    buffer.into()
}

/// Replacements in rounds in which every key is distinct: in one statement two changes of one row would race.
async fn replace_many(pool: Pool, rows: Vec<Passenger<'static>>) -> Vec<Result<Bytes, StoreError>> {
    let mut outcomes: Vec<Option<Result<Bytes, StoreError>>> = rows.iter().map(|_| None).collect();
    let mut waiting: Vec<(usize, Passenger<'static>)> = rows.into_iter().enumerate().collect();
    while !waiting.is_empty() {
        let mut round: Vec<(usize, Passenger<'static>)> = Vec::with_capacity(waiting.len());
        let mut later = Vec::new();
        for (place, row) in waiting {
            if round.iter().any(|(_, other)| other.uuid == row.uuid) {
                later.push((place, row));
            } else {
                round.push((place, row));
            }
        }
        let (places, rows): (Vec<usize>, Vec<Passenger>) = round.into_iter().unzip();
        let done = write_many(pool.clone(), REPLACE, REPLACE_MANY, rows).await;
        for (place, outcome) in places.into_iter().zip(done) {
            outcomes[place] = Some(outcome);
        }
        waiting = later;
    }
    outcomes.into_iter().map(|outcome| outcome.expect("each row was in one round")).collect()
}

/// Of several deletions of one passenger the first succeeds, as if they had come one after the other.
async fn delete_many(pool: Pool, keys: Vec<Uuid>) -> Vec<Result<(), StoreError>> {
    match pool.write(DELETE_MANY, &[&keys]).await {
        Ok(rows) => {
            let mut deleted: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
            let outcome = |key: &Uuid| match deleted.iter().position(|other| other == key) {
                Some(place) => {
                    deleted.swap_remove(place);
                    Ok(())
                }
                None => Err(StoreError::Missing),
            };
            keys.iter().map(outcome).collect()
        }
        Err(error) => all_failed(keys.len(), &error),
    }
}
