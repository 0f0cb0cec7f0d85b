//! Every SQL statement that requests run on passengers; those that change them are in `writes`.
//!
//! Operations on single passengers that arrive together are run together (`db::batch`): one query answers all lookups,
//! one transaction holds all writes of a kind, and each write is acknowledged after its commit. Columns are always named:
//! `select *` would break prepared plans when one is added.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::model::{Details, Passenger};
use super::patch::MergePatch;
use super::rows::{Stored, all_failed, passenger};
use super::writes::{Create, Delete, Patch, Replace, Write, write_many};
use crate::db::batch::{BatchLimits, Batcher, QUEUE};
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::version::Condition;

/// In the order of the key, so that no index but the key's will do: in others the key is the second column.
const GET: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare, version from passengers where uuid = any($1) order by uuid";

/// Most operations in one statement: more than arrive during a round trip at 60,000 requests a second.
const BATCH_SIZE: usize = 128;
/// So many waiting lookups are worth another statement, up to [`EAGER_LOOKUPS`] at once. Writes wait for the one before
/// them, because a commit costs more than the rows of a batch.
const LOOKUPS_WORTH: usize = 20;
/// One that PostgreSQL answers, one on its way, one whose answers are written: with 64 clients on two cores two make 7 %
/// more gets a second than one, and three 3 % more than two.
const EAGER_LOOKUPS: usize = 3;
/// Most statements of one kind at once; more only make smaller batches on a machine of a few cores.
const BATCHES_IN_FLIGHT: usize = 4;

/// The passengers of one database.
pub struct Store {
    gets: Batcher<Uuid, Stored>,
    creates: Batcher<Create, Stored>,
    replaces: Batcher<Replace, Stored>,
    patches: Batcher<Patch, Stored>,
    deletes: Batcher<Delete, ()>,
}

impl Store {
    /// The passengers behind a pool; an operation waits for others at most as long as for a connection.
    pub fn new(pool: &Pool, wait: Duration) -> Self {
        let limits = BatchLimits {
            size: BATCH_SIZE,
            eager: 1,
            worth: 0,
            in_flight: BATCHES_IN_FLIGHT,
            queue: QUEUE,
            wait,
            changes: true,
        };
        let lookup_limits = BatchLimits { eager: EAGER_LOOKUPS, worth: LOOKUPS_WORTH, changes: false, ..limits };
        let with_pool = || pool.clone();
        let (get, create, replace, patch, delete) = (with_pool(), with_pool(), with_pool(), with_pool(), with_pool());
        Self {
            gets: Batcher::new("get", lookup_limits, Box::new(move |keys| get_many(get.clone(), keys).boxed())),
            creates: Batcher::new("create", limits, Box::new(move |items| write_many(create.clone(), items).boxed())),
            replaces: Batcher::new(
                "replace",
                limits,
                Box::new(move |items| write_many(replace.clone(), items).boxed()),
            ),
            patches: Batcher::new("patch", limits, Box::new(move |items| write_many(patch.clone(), items).boxed())),
            deletes: Batcher::new("delete", limits, Box::new(move |items| write_many(delete.clone(), items).boxed())),
        }
    }

    /// Whether anybody waits for a single passenger, or did a moment ago.
    pub fn is_busy(&self, moment: Duration) -> bool {
        self.gets.is_busy(moment)
            || self.creates.is_busy(moment)
            || self.replaces.is_busy(moment)
            || self.patches.is_busy(moment)
            || self.deletes.is_busy(moment)
    }

    /// One passenger by key.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none, or the pool's and the batch's errors.
    pub async fn get(&self, uuid: Uuid) -> Result<Stored, StoreError> {
        self.gets.submit(uuid).await
    }

    /// Stores a new passenger under a new key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a constraint refuses it, or the pool's and the batch's errors.
    pub async fn create(&self, details: Details<'_>) -> Result<(Uuid, Stored), StoreError> {
        let uuid = Uuid::now_v7();
        let stored = self.creates.submit(Create(Passenger { uuid, details: details.into_owned() })).await?;
        Ok((uuid, stored))
    }

    /// Replaces everything of a passenger but its key.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Stale`], [`StoreError::Conflict`], or the pool's and the batch's errors.
    pub async fn replace(&self, uuid: Uuid, details: Details<'_>, condition: Condition) -> Result<Stored, StoreError> {
        let passenger = Passenger { uuid, details: details.into_owned() };
        self.replaces.submit(Replace { passenger, condition }).await
    }

    /// Sets some fields of a passenger.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn patch(&self, uuid: Uuid, patch: MergePatch<'_>, condition: Condition) -> Result<Stored, StoreError> {
        self.patches.submit(Patch { uuid, patch: patch.into_owned(), condition }).await
    }

    /// Removes a passenger.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Stale`], or the pool's and the batch's errors.
    pub async fn delete(&self, uuid: Uuid, condition: Condition) -> Result<(), StoreError> {
        self.deletes.submit(Delete { uuid, condition }).await
    }
}

/// Stores a new passenger as a part of somebody's transaction.
///
/// # Errors
/// [`StoreError::Conflict`] when a constraint refuses it, or the database's.
pub async fn create_in(transaction: &Transaction<'_>, details: Details<'_>) -> Result<(Uuid, Stored), StoreError> {
    let creation = Create(Passenger { uuid: Uuid::now_v7(), details: details.into_owned() });
    Ok((creation.uuid(), creation.run_in(transaction).await?))
}

async fn get_many(pool: Pool, keys: Vec<Uuid>) -> Vec<Result<Stored, StoreError>> {
    match pool.read(GET, &[&keys]).await.and_then(|rows| Documents::of(&rows)) {
        Ok(documents) => keys.iter().map(|key| documents.get(*key).ok_or(StoreError::Missing)).collect(),
        Err(error) => all_failed(keys.len(), &error),
    }
}

/// The rows of a batch as JSON, in one buffer that all answers share.
struct Documents {
    buffer: Bytes,
    /// Where each stands in the buffer, and its version.
    places: HashMap<Uuid, (Range<usize>, i64)>,
}

impl Documents {
    fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let mut buffer = Vec::with_capacity(rows.len() * Passenger::JSON_BYTES);
        let mut places = HashMap::with_capacity(rows.len());
        for row in rows {
            let passenger = passenger(row)?;
            let start = buffer.len();
            passenger.write_json(&mut buffer);
            places.insert(passenger.uuid, (start..buffer.len(), row.try_get(9)?));
        }
        Ok(Self { buffer: buffer.into(), places })
    }

    fn get(&self, key: Uuid) -> Option<Stored> {
        let (place, version) = self.places.get(&key)?;
        Some(Stored { document: self.buffer.slice(place.clone()), version: *version })
    }
}
