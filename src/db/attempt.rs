//! A change under way: what is known of it when its answer is missing.
//!
//! Until the statement that carries it out (or the commit of its transaction) is sent, a failure means that nothing was
//! changed. After that only the server's answer decides. One success decides nothing either: when the wait for a
//! synchronous standby is cancelled, PostgreSQL commits, warns, and reports success although no standby has the change.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Connection, Transaction};

use super::error::StoreError;

/// The function of PostgreSQL that waits for a standby (`src/backend/replication/syncrep.c`). Its warnings have no SQLSTATE
/// of their own, and their texts are translated.
const WAIT_FOR_STANDBY: &str = "SyncRepWaitForLSN";

/// Whether PostgreSQL has warned on a connection, since the last change on it began, that a commit was not waited for.
#[derive(Debug, Clone, Default)]
pub struct Unreplicated(Arc<AtomicBool>);

impl Unreplicated {
    /// Drives a connection to its end, with an eye on its warnings; of each notification `announced` is told.
    ///
    /// # Errors
    /// What ended it, if PostgreSQL did not close it in order.
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
            // Relaxed: the driver hands the answer that follows over through a channel.
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
    /// A change of which nothing was sent.
    pub fn new(unreplicated: &Unreplicated) -> Self {
        Self { sent: AtomicBool::new(false), unreplicated: unreplicated.clone() }
    }

    /// To be called right before what carries the change out is sent.
    pub fn sending(&self) {
        self.unreplicated.0.store(false, Ordering::Relaxed); // of a change before this one
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Commits the transaction that holds the change.
    ///
    /// # Errors
    /// The driver's, still to be judged.
    pub async fn commit(&self, transaction: Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        self.sending();
        transaction.commit().await
    }

    /// What is known of the change.
    ///
    /// # Errors
    /// [`StoreError::OutcomeUnknown`] where the failure, or the success, does not decide; otherwise the failure.
    pub fn judge<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.sent.load(Ordering::Relaxed) {
            return outcome;
        }
        if self.unreplicated.0.swap(false, Ordering::Relaxed) && outcome.is_ok() {
            return Err(StoreError::outcome_unknown("the wait for a synchronous standby was cancelled"));
        }
        outcome.map_err(StoreError::after_sending)
    }
}
