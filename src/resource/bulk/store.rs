//! The SQL of bulk creation: one transaction around one `COPY`, and the rows as stored.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, CopyInSink, Row, Transaction};
use uuid::Uuid;

use super::super::by::By;
use super::super::definition::Resource;
use crate::db::attempt::Attempt;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::db::session::Param;
use crate::idempotency::answer::Answer;
use crate::idempotency::request::Request;
use crate::idempotency::store::{Claim, claim, keep};
use crate::trace::current::commented;

/// Rows on their way into the table; dropping it undoes everything.
pub struct Loading<'a> {
    // Dropped first: a copy is cancelled before its transaction is rolled back.
    sink: Pin<Box<CopyInSink<Bytes>>>,
    transaction: Transaction<'a>,
}

impl<'a> Loading<'a> {
    /// Begins; all of it must be done in time, which PostgreSQL sees to as well. A key, with the time for which it counts, is
    /// claimed first; when it is not new, that is said instead.
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

    /// Keeps what was sent and the history of it, and with it the answer to a request with a key.
    ///
    /// # Errors
    /// The database's, still to be judged by the attempt.
    pub async fn commit(
        mut self,
        resource: &Resource,
        copied: Copied<'_>,
        attempt: &Attempt,
        answer: Option<(&Request, &Answer)>,
    ) -> Result<(), StoreError> {
        self.sink.as_mut().finish().await?;
        if let (Some(history), Some((least, greatest))) = (&resource.sql.history, copied.between) {
            let (name, request_id) = copied.by.recorded();
            let params = [
                (&least as Param<'_>, Type::UUID),
                (&greatest as Param<'_>, Type::UUID),
                (&name as Param<'_>, Type::TEXT),
                (&request_id as Param<'_>, Type::TEXT),
            ];
            let entries = self.transaction.execute_typed(history.copied, &params).await?;
            if entries != copied.count {
                return Err(StoreError::unavailable("the history of a copy is not whole"));
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
    /// The least and the greatest of their keys, between which there may be others' rows.
    pub between: Option<(Uuid, Uuid)>,
    /// How many they are.
    pub count: u64,
    /// Who sent them.
    pub by: &'a By,
}

/// The rows with these keys, in key order.
///
/// # Errors
/// The pool's.
pub async fn stored(resource: &Resource, pool: &Pool, keys: &[Uuid]) -> Result<Vec<Row>, StoreError> {
    pool.read(&resource.db.get, resource.sql.get_rows, &[&keys]).await
}
