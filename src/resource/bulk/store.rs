//! The SQL of bulk creation: one transaction around one `COPY`, and reading the stored rows back.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, CopyInSink, Row, Transaction};
use uuid::Uuid;

use super::super::actor::Actor;
use super::super::definition::Resource;
use crate::db::attempt::Attempt;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::session::{Param, Query};
use crate::idempotency::answer::Answer;
use crate::idempotency::request::Request;
use crate::idempotency::store::{Claim, claim, keep};
use crate::trace::current::commented;

/// A `COPY` in progress; dropping it rolls everything back.
pub struct Loading<'a> {
    // Dropped first, so that the copy is cancelled before its transaction is rolled back.
    sink: Pin<Box<CopyInSink<Bytes>>>,
    transaction: Transaction<'a>,
}

impl<'a> Loading<'a> {
    /// Starts the transaction, whose statements PostgreSQL also limits by `timeout`. A key, with its time to live, is claimed
    /// first; if it is not new, the claim is returned instead.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(
        resource: &Resource,
        client: &'a mut Client,
        timeout: Duration,
        key: Option<(&str, Duration)>,
    ) -> Result<Result<Self, Claim>, StoreError> {
        let transaction = client.transaction().await?;
        transaction.batch_execute(&format!("set local statement_timeout = {}", timeout.as_millis())).await?;
        if let Some((key, ttl)) = key {
            match claim(&transaction, key, ttl).await? {
                Claim::New => {}
                known => return Ok(Err(known)),
            }
        }
        let sink = Box::pin(transaction.copy_in::<_, Bytes>(&*commented(resource.sql.copy_in)).await?);
        Ok(Ok(Self { sink, transaction }))
    }

    /// Sends rows.
    ///
    /// # Errors
    /// The database's.
    pub async fn send(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        Ok(self.sink.send(chunk).await?)
    }

    /// Commits the rows and their history, and with them the response to a request with a key.
    ///
    /// # Errors
    /// The database's; the attempt still has to classify them.
    pub async fn commit(
        mut self,
        resource: &Resource,
        copied: Copied<'_>,
        attempt: &Attempt,
        answer: Option<(&Request, &Answer)>,
    ) -> Result<(), StoreError> {
        self.sink.as_mut().finish().await?;
        if let (Some(history), Some((least, greatest))) = (&resource.sql.history, copied.between) {
            let (name, request_id) = copied.actor.recorded();
            let params = [
                (&least as Param<'_>, Type::UUID),
                (&greatest as Param<'_>, Type::UUID),
                (&name as Param<'_>, Type::TEXT),
                (&request_id as Param<'_>, Type::TEXT),
            ];
            let entries = self.transaction.execute_typed(history.copied, &params).await?;
            if entries != copied.count {
                return Err(StoreError::unavailable("the history of a copy is incomplete"));
            }
        }
        if let Some((request, answer)) = answer {
            keep(&self.transaction, &request.key, &request.fingerprint, answer).await?;
        }
        Ok(attempt.commit(self.transaction).await?)
    }
}

/// Rows that were sent.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// The smallest and largest of their keys; rows of other requests may lie between them.
    pub between: Option<(Uuid, Uuid)>,
    /// The number of rows.
    pub count: u64,
    /// The actor recorded in the history.
    pub actor: &'a Actor,
}

/// Passes the rows with these keys to `each`, in key order.
///
/// # Errors
/// The pool's, or those of `each`.
pub async fn stored(
    resource: &Resource,
    pool: &Pool,
    keys: &[Uuid],
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    pool.for_each(&resource.db.get, Query::Prepared(resource.sql.get_rows, &[&keys]), each).await
}
