//! Single rows by key: reads are here, writes in `writes`.
//!
//! Concurrent operations on single rows are batched (`db::batch`): one query serves all lookups, one transaction contains all
//! writes of a kind, and each write is acknowledged after its commit.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::actor::Actor;
use super::definition::Resource;
use super::long_rows::longest;
use super::row::{self, JSON_BYTES, Record, Stored, all_failed, owned, owned_patch};
use super::value::Value;
use super::writes::{Change, Create, Delete, Patch, Replace, Write, write_many};
use crate::db::batch::{BatchLimits, BatchName, Batcher, QUEUE};
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::version::Precondition;
use crate::http::body::SMALL;

/// Maximum number of operations in one statement: more than arrive during a round trip at 60,000 requests a second.
const BATCH_SIZE: usize = 128;
/// Approximate maximum size of the rows of one statement, whose number is lower if the description allows long ones.
const BATCH_MAX_BYTES: usize = 2 << 20;
/// Maximum size of a buffer that the responses of a batch share; a slow client would keep all of a longer one.
const SHARED_MAX_BYTES: usize = 256 << 10;
/// Number of waiting lookups that justify another concurrent statement, up to [`EAGER_LOOKUPS`]. Writes wait for the previous
/// statement, because a commit costs more than the rows of a batch.
const LOOKUPS_WORTH: usize = 20;
/// One executing in PostgreSQL, one in transit, one whose responses are being written: with 64 clients on two cores, two yield
/// 7 % more gets per second than one, and three 3 % more than two.
const EAGER_LOOKUPS: usize = 3;
/// Maximum number of concurrent statements of one kind; more only make batches smaller on a machine with few cores.
const BATCHES_IN_FLIGHT: usize = 4;

/// The rows of one resource in one database.
pub struct Store {
    resource: &'static Resource,
    gets: Batcher<Uuid, Stored>,
    creates: Batcher<Write<Create>, Stored>,
    replaces: Batcher<Write<Replace>, Stored>,
    patches: Batcher<Write<Patch>, Stored>,
    deletes: Batcher<Write<Delete>, ()>,
}

impl Store {
    /// A store on a pool; an operation waits for its batch at most as long as for a connection.
    pub fn new(resource: &'static Resource, pool: &Pool, wait: Duration) -> Self {
        let limits = BatchLimits {
            size: (BATCH_MAX_BYTES / longest(resource).max(1)).clamp(1, BATCH_SIZE),
            eager: 1,
            worth: 0,
            in_flight: BATCHES_IN_FLIGHT,
            queue: QUEUE,
            wait,
            changes: true,
        };
        let lookup_limits = BatchLimits { eager: EAGER_LOOKUPS, worth: LOOKUPS_WORTH, changes: false, ..limits };
        let name = |batch| BatchName { resource: resource.name, batch };
        let get = pool.clone();
        Self {
            resource,
            gets: Batcher::new(
                name("get"),
                lookup_limits,
                Box::new(move |keys| get_many(resource, get.clone(), keys).boxed()),
            ),
            creates: writes(name("create"), limits, pool),
            replaces: writes(name("replace"), limits, pool),
            patches: writes(name("patch"), limits, pool),
            deletes: writes(name("delete"), limits, pool),
        }
    }

    /// Whether a request waits for a single row, or did within `window`.
    pub fn is_busy(&self, window: Duration) -> bool {
        self.gets.is_busy(window)
            || self.creates.is_busy(window)
            || self.replaces.is_busy(window)
            || self.patches.is_busy(window)
            || self.deletes.is_busy(window)
    }

    /// Reads a row by key.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it does not exist, or the pool's and the batch's errors.
    pub async fn get(&self, uuid: Uuid) -> Result<Stored, StoreError> {
        self.gets.submit(uuid).await
    }

    /// Inserts a row under a new key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a constraint rejects it, or the pool's and the batch's errors.
    pub async fn create(&self, values: Vec<Value<'_>>, changed_by: Actor) -> Result<(Uuid, Stored), StoreError> {
        let uuid = Uuid::now_v7();
        let record = Record { uuid, values: owned(values) };
        let stored = self.creates.submit(self.write(Create(record), Precondition::NONE, changed_by)).await?;
        Ok((uuid, stored))
    }

    /// Replaces all values of a row except its key.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Stale`], [`StoreError::Conflict`], or the pool's and the batch's errors.
    pub async fn replace(
        &self,
        uuid: Uuid,
        values: Vec<Value<'_>>,
        condition: Precondition,
        changed_by: Actor,
    ) -> Result<Stored, StoreError> {
        let record = Record { uuid, values: owned(values) };
        self.replaces.submit(self.write(Replace(record), condition, changed_by)).await
    }

    /// Updates some columns of a row.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn patch(
        &self,
        uuid: Uuid,
        patch: row::Patch<'_>,
        condition: Precondition,
        changed_by: Actor,
    ) -> Result<Stored, StoreError> {
        self.patches.submit(self.write(Patch(uuid, owned_patch(patch)), condition, changed_by)).await
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Stale`], or the pool's and the batch's errors.
    pub async fn delete(&self, uuid: Uuid, condition: Precondition, changed_by: Actor) -> Result<(), StoreError> {
        self.deletes.submit(self.write(Delete(uuid), condition, changed_by)).await
    }

    fn write<C>(&self, change: C, condition: Precondition, changed_by: Actor) -> Write<C> {
        Write { resource: self.resource, condition, changed_by, change }
    }
}

/// Inserts a row in the caller's transaction.
///
/// # Errors
/// [`StoreError::Conflict`] when a constraint rejects it, or the database's.
pub async fn create_in(
    resource: &'static Resource,
    transaction: &Transaction<'_>,
    values: Vec<Value<'_>>,
    changed_by: Actor,
) -> Result<(Uuid, Stored), StoreError> {
    let uuid = Uuid::now_v7();
    let change = Create(Record { uuid, values: owned(values) });
    let creation = Write { resource, condition: Precondition::NONE, changed_by, change };
    Ok((uuid, creation.run_in(transaction).await?))
}

fn writes<C: Change>(name: BatchName, limits: BatchLimits, pool: &Pool) -> Batcher<Write<C>, C::Done> {
    let pool = pool.clone();
    Batcher::new(name, limits, Box::new(move |items| write_many(pool.clone(), items).boxed()))
}

async fn get_many(resource: &'static Resource, pool: Pool, keys: Vec<Uuid>) -> Vec<Result<Stored, StoreError>> {
    match pool.read(&resource.db.get, resource.sql.get, &[&keys]).await.and_then(|rows| Documents::of(resource, &rows))
    {
        Ok(documents) => keys.iter().map(|key| documents.get(*key).ok_or(StoreError::Missing)).collect(),
        // An unreadable row must not fail the others.
        Err(StoreError::Unreadable { .. }) if keys.len() > 1 => {
            let mut outcomes = Vec::with_capacity(keys.len());
            for key in keys {
                outcomes.extend(Box::pin(get_many(resource, pool.clone(), vec![key])).await);
            }
            outcomes
        }
        Err(error) => all_failed(keys.len(), &error),
    }
}

/// The rows of a batch as JSON, in one buffer shared by all responses unless it is long.
struct Documents {
    buffer: Bytes,
    /// The range of each in the buffer, and its version.
    ranges: HashMap<Uuid, (Range<usize>, i64)>,
}

impl Documents {
    fn of(resource: &Resource, rows: &[Row]) -> Result<Self, StoreError> {
        let mut buffer = Vec::with_capacity(rows.len() * JSON_BYTES);
        let mut ranges = HashMap::with_capacity(rows.len());
        for row in rows {
            let start = buffer.len();
            row::write_row(&resource.columns, row, &mut buffer)?;
            ranges.insert(row::key(row)?, (start..buffer.len(), row.try_get(resource.columns.len())?));
        }
        Ok(Self { buffer: buffer.into(), ranges })
    }

    fn get(&self, key: Uuid) -> Option<Stored> {
        let (range, version) = self.ranges.get(&key)?;
        let is_long = range.len() > SMALL || self.buffer.len() > SHARED_MAX_BYTES;
        let document = match is_long {
            true => Bytes::copy_from_slice(&self.buffer[range.clone()]),
            false => self.buffer.slice(range.clone()),
        };
        Some(Stored { document, version: *version })
    }
}
