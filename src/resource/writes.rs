//! Runs the statements that change rows, each for many rows at once.
//!
//! Concurrent writes of a kind share a statement (`db::batch`). A batch that the database rolled back is retried row by row, so
//! an invalid row never fails the others. Each change draws a new version.
//!
//! Invariant: the keys of one statement ascend and are distinct. Two changes of one row would race; and every statement that
//! locks many rows locks them in key order, so that no two of them deadlock.

use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::actor::Actor;
use super::arrays::{Columns, PatchColumns};
use super::definition::Resource;
use super::row::{self, Record, Stored, all_failed};
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::session::Param;
use crate::db::version::{Precondition, Preconditions};
use crate::trace::current::commented;

/// A write of one row.
pub struct Write<C> {
    /// The resource; the same for all items of a statement.
    pub resource: &'static Resource,
    /// The condition on the row's current version.
    pub condition: Precondition,
    /// The actor recorded in the history.
    pub changed_by: Actor,
    /// The change.
    pub change: C,
}

/// A kind of write whose items are combined into one statement.
pub trait Change: Sized + Send + Sync + 'static {
    /// The result for a row that was written.
    type Done: Send + Sync;

    /// Whether the write deletes its row.
    const REMOVES: bool = false;

    /// The key of the row.
    fn uuid(&self) -> Uuid;

    /// Runs the statement for items whose keys ascend; returns a row, starting with its key, for each item written.
    fn run(
        resource: &'static Resource,
        pool: &Pool,
        items: &[Write<Self>],
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;

    /// The result for an item, from the statement's row.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the row is not the statement's.
    fn done(&self, resource: &Resource, row: &Row) -> Result<Self::Done, StoreError>;
}

/// Inserts the row.
pub struct Create(pub Record<'static>);

/// Replaces the row with the same key.
pub struct Replace(pub Record<'static>);

/// Updates columns of the row with the key.
pub struct Patch(pub Uuid, pub row::Patch<'static>);

/// Deletes the row with the key.
pub struct Delete(pub Uuid);

impl Write<Create> {
    /// Runs in the caller's transaction.
    ///
    /// # Errors
    /// The database's.
    pub async fn run_in(&self, transaction: &Transaction<'_>) -> Result<Stored, StoreError> {
        let actor = self.changed_by.recorded();
        let params = recorded(self.resource, params(&self.change.0), (&actor.0, &actor.1));
        let row = transaction.query_one(&*commented(self.resource.sql.create), &params).await?;
        self.change.done(self.resource, &row)
    }
}

impl Change for Create {
    type Done = Stored;

    fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    async fn run(resource: &'static Resource, pool: &Pool, items: &[Write<Self>]) -> Result<Vec<Row>, StoreError> {
        if let [item] = items {
            let actor = item.changed_by.recorded();
            let params = recorded(resource, params(&item.change.0), (&actor.0, &actor.1));
            return pool.write(&resource.db.create, resource.sql.create, &params).await;
        }
        let records: Vec<&Record<'_>> = items.iter().map(|item| &item.change.0).collect();
        let (columns, actor) = (Columns::of(resource, &records), all_actors(items));
        let params = recorded(resource, columns.params(), (&actor.0, &actor.1));
        pool.write(&resource.db.create, resource.sql.create_many, &params).await
    }

    fn done(&self, resource: &Resource, row: &Row) -> Result<Stored, StoreError> {
        stored(resource, &self.0, row)
    }
}

impl Change for Replace {
    type Done = Stored;

    fn uuid(&self) -> Uuid {
        self.0.uuid
    }

    async fn run(resource: &'static Resource, pool: &Pool, items: &[Write<Self>]) -> Result<Vec<Row>, StoreError> {
        if let [Write { condition: Precondition { required, refused }, changed_by, change, .. }] = items {
            let mut params = params(&change.0);
            params.extend([required as Param<'_>, refused]);
            let actor = changed_by.recorded();
            let params = recorded(resource, params, (&actor.0, &actor.1));
            return pool.write(&resource.db.replace, resource.sql.replace, &params).await;
        }
        let records: Vec<&Record<'_>> = items.iter().map(|item| &item.change.0).collect();
        let (columns, actor) = (Columns::of(resource, &records), all_actors(items));
        let conditions = Preconditions::of(items.iter().map(|item| &item.condition));
        let params = [&columns.params()[..], &conditions.params()].concat();
        let params = recorded(resource, params, (&actor.0, &actor.1));
        pool.write(&resource.db.replace, resource.sql.replace_many, &params).await
    }

    fn done(&self, resource: &Resource, row: &Row) -> Result<Stored, StoreError> {
        stored(resource, &self.0, row)
    }
}

impl Change for Patch {
    type Done = Stored;

    fn uuid(&self) -> Uuid {
        self.0
    }

    async fn run(resource: &'static Resource, pool: &Pool, items: &[Write<Self>]) -> Result<Vec<Row>, StoreError> {
        let patches: Vec<_> = items.iter().map(|item| (item.change.0, &item.change.1)).collect();
        let (columns, actor) = (PatchColumns::of(resource, &patches), all_actors(items));
        let conditions = Preconditions::of(items.iter().map(|item| &item.condition));
        let params = [&columns.params()[..], &conditions.params()].concat();
        let params = recorded(resource, params, (&actor.0, &actor.1));
        pool.write(&resource.db.patch, resource.sql.patch_many, &params).await
    }

    fn done(&self, resource: &Resource, row: &Row) -> Result<Stored, StoreError> {
        let mut document = Vec::with_capacity(row::JSON_BYTES);
        row::write_row(&resource.columns, row, &mut document)?;
        Ok(Stored { document: document.into(), version: row.try_get(resource.columns.len())? })
    }
}

impl Change for Delete {
    type Done = ();

    const REMOVES: bool = true;

    fn uuid(&self) -> Uuid {
        self.0
    }

    async fn run(resource: &'static Resource, pool: &Pool, items: &[Write<Self>]) -> Result<Vec<Row>, StoreError> {
        let keys: Vec<Uuid> = items.iter().map(|item| item.change.0).collect();
        let (conditions, actor) = (Preconditions::of(items.iter().map(|item| &item.condition)), all_actors(items));
        let params = [&[&keys as Param<'_>], &conditions.params()[..]].concat();
        let params = recorded(resource, params, (&actor.0, &actor.1));
        pool.write(&resource.db.delete, resource.sql.delete_many, &params).await
    }

    fn done(&self, _: &Resource, _: &Row) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Writes items whose keys may repeat, in rounds of distinct keys: items of one key take effect in their order.
pub async fn write_many<C: Change>(pool: Pool, items: Vec<Write<C>>) -> Vec<Result<C::Done, StoreError>> {
    let mut outcomes: Vec<Option<Result<C::Done, StoreError>>> = items.iter().map(|_| None).collect();
    let mut waiting: Vec<(usize, Write<C>)> = items.into_iter().enumerate().collect();
    waiting.sort_by_key(|(_, item)| item.change.uuid()); // stable, so that items of one key keep their order
    while !waiting.is_empty() {
        let mut last = None;
        let (round, mut later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, item)| last.replace(item.change.uuid()) != Some(item.change.uuid()));
        let (indexes, round): (Vec<usize>, Vec<Write<C>>) = round.into_iter().unzip();
        let mut gone = Vec::new();
        for ((index, item), outcome) in indexes.into_iter().zip(&round).zip(write_ascending(&pool, &round).await) {
            if matches!(outcome, Err(StoreError::Missing)) || C::REMOVES && outcome.is_ok() {
                gone.push(item.change.uuid());
            }
            outcomes[index] = Some(outcome);
        }
        later.retain(|(index, item)| {
            let is_gone = gone.binary_search(&item.change.uuid()).is_ok();
            if is_gone {
                outcomes[*index] = Some(Err(StoreError::Missing));
            }
            !is_gone
        });
        waiting = later;
    }
    outcomes.into_iter().map(|outcome| outcome.expect("each item was in one round, or of a key that is gone")).collect()
}

/// Writes items with ascending keys in one statement, or one by one if the database rolled that back.
async fn write_ascending<C: Change>(pool: &Pool, items: &[Write<C>]) -> Vec<Result<C::Done, StoreError>> {
    debug_assert!(items.is_sorted_by(|a, b| a.change.uuid() < b.change.uuid()), "keys ascend and are distinct");
    let Some(first) = items.first() else { return Vec::new() };
    match C::run(first.resource, pool, items).await {
        Ok(rows) => outcomes(pool, items, &rows).await,
        Err(error) if items.len() > 1 && error.is_rolled_back() => {
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                // A single item is not retried again.
                outcomes.extend(Box::pin(write_ascending(pool, std::slice::from_ref(item))).await);
            }
            outcomes
        }
        Err(error) => all_failed(items.len(), &error),
    }
}

async fn outcomes<C: Change>(pool: &Pool, items: &[Write<C>], rows: &[Row]) -> Vec<Result<C::Done, StoreError>> {
    // Sorted rather than hashed: usually there is one.
    let written: Result<Vec<(Uuid, &Row)>, _> = rows.iter().map(|row| Ok((row::key(row)?, row))).collect();
    let mut written = match written {
        Ok(written) => written,
        Err(error) => return all_failed(items.len(), &error),
    };
    written.sort_unstable_by_key(|(uuid, _)| *uuid);
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(match written.binary_search_by_key(&item.change.uuid(), |(uuid, _)| *uuid) {
            Ok(index) => item.change.done(item.resource, written[index].1),
            Err(_) => Err(StoreError::Missing),
        });
    }
    distinguish_stale_from_missing(pool, items, &mut outcomes).await;
    outcomes
}

/// A write that matched no row found either none or one with another version. Checking afterwards is as good as atomically: a
/// row deleted since is missing, and a version that never matched cannot match later.
async fn distinguish_stale_from_missing<C: Change>(
    pool: &Pool,
    items: &[Write<C>],
    outcomes: &mut [Result<C::Done, StoreError>],
) {
    let is_unclear = |index: usize, item: &Write<C>| {
        matches!(outcomes[index], Err(StoreError::Missing)) && !item.condition.is_none()
    };
    let unclear: Vec<(usize, Uuid)> = items
        .iter()
        .enumerate()
        .filter(|(index, item)| is_unclear(*index, item))
        .map(|(index, item)| (index, item.change.uuid()))
        .collect();
    if unclear.is_empty() {
        return;
    }
    let keys: Vec<Uuid> = unclear.iter().map(|(_, uuid)| *uuid).collect();
    let resource = items[unclear[0].0].resource;
    let existing = pool.read(&resource.db.exists, resource.sql.which_exist, &[&keys]).await;
    let existing = existing.and_then(|rows| rows.iter().map(row::key).collect::<Result<Vec<Uuid>, _>>());
    for (index, uuid) in unclear {
        match &existing {
            Ok(existing) if existing.contains(&uuid) => outcomes[index] = Err(StoreError::Stale),
            Ok(_) => {}
            Err(error) => outcomes[index] = Err(error.clone()),
        }
    }
}

/// The actors of the changes of a statement for many rows.
fn all_actors<C: Change>(items: &[Write<C>]) -> (Vec<Option<&str>>, Vec<Option<&str>>) {
    items.iter().map(|item| item.changed_by.recorded()).unzip()
}

/// The parameters of a statement, followed by the actors and request ids if a history is recorded.
pub fn recorded<'a>(
    resource: &Resource,
    mut params: Vec<Param<'a>>,
    (actor, request_id): (Param<'a>, Param<'a>),
) -> Vec<Param<'a>> {
    if resource.sql.history.is_some() {
        params.extend([actor, request_id]);
    }
    params
}

/// The parameters of the statements for one row.
pub fn params<'a>(record: &'a Record<'_>) -> Vec<Param<'a>> {
    let key: Param<'a> = &record.uuid;
    std::iter::once(key).chain(record.values.iter().map(|value| value as Param<'a>)).collect()
}

/// The row just written, with the version from the statement's row; no trigger changes other columns.
fn stored(resource: &Resource, record: &Record<'_>, row: &Row) -> Result<Stored, StoreError> {
    Ok(Stored { document: record.document(resource), version: row.try_get(1)? })
}
