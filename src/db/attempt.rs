//! A change in progress: determines its outcome when its answer is missing.
//!
//! Until the statement that makes the change (or the commit of its transaction) is sent, a failure means that nothing was
//! changed. After that, only the server's answer is conclusive. One kind of success is not conclusive either: when the wait for
//! a synchronous standby is cancelled, PostgreSQL commits, sends a warning, and reports success although no standby has the
//! change.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Connection, Transaction};

use super::error::StoreError;

/// The PostgreSQL function that waits for a standby (`src/backend/replication/syncrep.c`). Its warnings have no SQLSTATE of
/// their own, and their texts are translated.
const WAIT_FOR_STANDBY: &str = "SyncRepWaitForLSN";

/// Whether PostgreSQL has warned on a connection, since the last change on it began, that a commit did not wait for a standby.
#[derive(Debug, Clone, Default)]
pub struct Unreplicated(Arc<AtomicBool>);

impl Unreplicated {
    /// Drives a connection until it ends and records its warnings; each notification triggers `announced`.
    ///
    /// # Errors
    /// The reason why the connection ended, unless PostgreSQL closed it normally.
    pub async fn drive<S, T>(
        self,
        mut connection: Connection<S, T>,
        announced: Arc<Notify>,
    ) -> Result<(), tokio_postgres::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message? {
                AsyncMessage::Notice(notice) => self.note(&notice),
                AsyncMessage::Notification(_) => announced.notify_one(),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&self, notice: &DbError) {
        if notice.routine() == Some(WAIT_FOR_STANDBY) {
            // Relaxed: the driver passes the following answer through a channel.
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// One change on one connection.
#[derive(Debug)]
pub struct Attempt {
    sent: AtomicBool,
    unreplicated: Unreplicated,
}

impl Attempt {
    /// A change that has not been sent yet.
    pub fn new(unreplicated: &Unreplicated) -> Self {
        Self { sent: AtomicBool::new(false), unreplicated: unreplicated.clone() }
    }

    /// Must be called immediately before sending the statement that makes the change.
    pub fn sending(&self) {
        self.unreplicated.0.store(false, Ordering::Relaxed); // left over from an earlier change
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Commits the transaction that holds the change.
    ///
    /// # Errors
    /// The driver's, not yet passed through [`Attempt::classify`].
    pub async fn commit(&self, transaction: Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        self.sending();
        transaction.commit().await
    }

    /// Converts the outcome of the change if it does not prove whether the change was made.
    ///
    /// # Errors
    /// [`StoreError::OutcomeUnknown`] if neither the failure nor the success is conclusive; otherwise the failure.
    pub fn classify<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.sent.load(Ordering::Relaxed) {
            return outcome;
        }
        if self.unreplicated.0.swap(false, Ordering::Relaxed) && outcome.is_ok() {
            return Err(StoreError::outcome_unknown("the wait for a synchronous standby was cancelled"));
        }
        outcome.map_err(StoreError::after_sending)
    }
}
