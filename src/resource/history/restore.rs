//! Restores an earlier state of a row, as a change like any other: with a new version and its own history entry.
//!
//! In one transaction, the row is locked, the wanted state is looked up, and one statement writes the row and the history.

use tokio_postgres::Transaction;
use uuid::Uuid;

use super::super::actor::Actor;
use super::super::definition::Resource;
use super::super::row::{Record, Stored};
use super::super::writes::{params, recorded};
use super::state::State;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::version::Precondition;
use crate::db::wait_time::Waiting;
use crate::trace::current::commented;

/// Maximum number of attempts; each further attempt is needed only because a concurrent restore has succeeded.
const ATTEMPTS: usize = 3;

/// A restore operation.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The resource.
    pub resource: &'static Resource,
    /// The row's key.
    pub uuid: Uuid,
    /// The version; defaults to the last one of a deleted row.
    pub version: Option<i64>,
    /// The precondition on the existing row.
    pub condition: Precondition,
    /// Whether the row may be absent.
    pub may_be_absent: bool,
    /// The actor recorded in the history.
    pub changed_by: Actor,
}

impl Restore {
    /// Runs in its own transaction.
    ///
    /// # Errors
    /// As [`Restore::run_in`], or the pool's.
    pub async fn run_alone(&self, pool: &Pool) -> Result<Stored, StoreError> {
        let _waiting = Waiting::begin();
        let mut session = pool.session().await?;
        let (deadline, attempt) = (session.deadline(), session.attempt());
        let work = async {
            let transaction = session.client_mut().transaction().await?;
            let outcome = self.run_in(&transaction).await;
            match &outcome {
                Ok(_) => attempt.commit(transaction).await?,
                Err(_) => transaction.rollback().await?,
            }
            outcome
        };
        let mut timed = self.resource.db.restore.begin();
        let outcome = timed.around(tokio::time::timeout(deadline, work)).await;
        let outcome = attempt.classify(session.finish(outcome));
        timed.record_outcome(&outcome);
        outcome
    }

    /// Runs in the caller's transaction.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the wanted state is not kept, [`StoreError::Stale`] when the row does not meet the
    /// condition, [`StoreError::Conflict`] with the primary key's constraint when the row exists and no version is given, and
    /// with a column's when its rule no longer allows the value.
    pub async fn run_in(&self, transaction: &Transaction<'_>) -> Result<Stored, StoreError> {
        let history = self.resource.sql.history.as_ref().ok_or(StoreError::Missing)?;
        for _ in 0..ATTEMPTS {
            let current: Option<i64> =
                transaction.query_opt(history.lock, &[&self.uuid]).await?.map(|row| row.try_get(0)).transpose()?;
            let is_met = match current {
                Some(current) => self.condition.is_met(current),
                None => self.may_be_absent,
            };
            let wanted = match (self.version, current) {
                (Some(version), _) => transaction.query_opt(history.at_version, &[&self.uuid, &version]).await?,
                (None, None) => transaction.query_opt(history.last, &[&self.uuid]).await?,
                (None, Some(_)) if !is_met => return Err(StoreError::Stale),
                (None, Some(_)) => {
                    return Err(StoreError::Conflict { constraint: format!("{}_pkey", self.resource.table) });
                }
            };
            let Some(wanted) = wanted else { return Err(StoreError::Missing) };
            if !is_met {
                return Err(StoreError::Stale);
            }
            // If the last entry is not a deletion, a concurrent restore was faster, or the row was deleted by hand.
            let is_deletion = self.version.is_some() || wanted.try_get::<_, &str>("operation")? == "delete";
            let Some(before) = wanted.try_get::<_, Option<String>>("before")?.filter(|_| is_deletion) else { continue };
            let values = State::read(&before)?.values(self.resource).map_err(|column| StoreError::Conflict {
                constraint: format!("{}_{}", self.resource.table, column.identifier),
            })?;
            let record = Record { uuid: self.uuid, values };
            let sql = if current.is_some() { history.restore_over } else { history.restore_anew };
            let actor = self.changed_by.recorded();
            let params = recorded(self.resource, params(&record), (&actor.0, &actor.1));
            let written = transaction.query_opt(&*commented(sql), &params).await?;
            if let Some(row) = written {
                return Ok(Stored { document: record.document(self.resource), version: row.try_get(1)? });
            }
        }
        Err(StoreError::Missing)
    }
}
