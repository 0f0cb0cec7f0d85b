//! Opens a pool's sessions, each configured for the pool's purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection};
use metrics::Counter;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, timeout_at};

use super::connect::ConnectError;
use super::conninfo::ConnInfo;
use super::session::Session;

/// A pending pool slot keeps retrying to connect for at least this long, and for as long as callers are waiting for a
/// connection.
const MIN_RETRY_TIME: Duration = Duration::from_millis(250);

/// Interval between connection attempts while PostgreSQL is unreachable: bounds how late the first request after its return is
/// served. A recovering server starts a process for each attempt.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Purpose of a pool's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Rows by key, writes and transactions.
    Keys,
    /// Lists, counts, statistics: statements whose cost grows with the table.
    Lists,
    /// The readiness probe.
    Probe,
    /// Like lists, on a replica.
    Replica,
    /// The check of the replica's replay position.
    ReplicaProbe,
}

impl PoolKind {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Lists => "lists",
            Self::Probe => "probe",
            Self::Replica => "replica",
            Self::ReplicaProbe => "replica_probe",
        }
    }

    /// Additional session settings. A list must not occupy several processors: the number of sessions for lists bounds how many
    /// processors lists can occupy.
    fn settings(self) -> &'static str {
        match self {
            Self::Lists | Self::Replica => "; set max_parallel_workers_per_gather = 0",
            Self::Keys | Self::Probe | Self::ReplicaProbe => "",
        }
    }
}

/// Opens sessions for bb8.
pub struct Manager {
    /// The server.
    pub conninfo: ConnInfo,
    /// Purpose of the sessions.
    pub kind: PoolKind,
    /// Longest run time of a statement.
    pub statement_timeout: Duration,
    /// Set to true while the server is unreachable.
    pub down: Arc<watch::Sender<bool>>,
    /// Number of callers waiting for a session.
    pub waiting: Arc<AtomicUsize>,
    /// Held by the slot that is trying to reconnect to an unreachable server.
    pub reconnecting: Mutex<()>,
    /// Receives connection errors.
    pub errors: LogSink,
}

impl Manager {
    async fn open(&self) -> Result<Box<Session>, ConnectError> {
        let connection = self.conninfo.connect().await?;
        Ok(Box::new(Session::new(connection, self.statement_timeout, self.kind.settings()).await?))
    }

    /// Waits until this slot may try to reconnect, or until the server is reachable again.
    async fn acquire_reconnect(&self, until: Instant) -> Result<Option<MutexGuard<'_, ()>>, ConnectError> {
        let mut down = self.down.subscribe();
        let waiting = async {
            tokio::select! {
                biased;
                _ = down.wait_for(|down| !down) => None, // cannot fail: `self` owns the sender
                guard = self.reconnecting.lock() => Some(guard),
            }
        };
        timeout_at(until, waiting).await.map_err(|_| ConnectError::Unreachable)
    }
}

impl ManageConnection for Manager {
    // Boxed, because bb8 moves connections at each checkout, and a session is large.
    type Connection = Box<Session>;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Box<Session>, Self::Error> {
        let mut until = Instant::now() + MIN_RETRY_TIME;
        loop {
            // While the server is unreachable, one slot tries to reconnect, and the others wait for its success.
            let reconnecting = if *self.down.borrow() { Some(self.acquire_reconnect(until).await?) } else { None };
            let begun = Instant::now();
            let opened = self.open().await;
            tracing::debug!(pool = ?self.kind, is_open = opened.is_ok(), duration_us = begun.elapsed().as_micros(), "a session");
            self.down.send_replace(opened.is_err());
            match opened {
                Err(error) if Instant::now() >= until => {
                    // bb8 starts a slot only when a caller begins to wait: without this, callers already waiting would be left
                    // without a reconnecting slot.
                    if self.waiting.load(Ordering::Relaxed) == 0 {
                        return Err(error);
                    }
                    self.errors.sink(error);
                    until = Instant::now() + MIN_RETRY_TIME;
                }
                Err(_) => {}
                opened => return opened,
            }
            tokio::time::sleep(RETRY_INTERVAL).await; // there is no notification when a database becomes reachable
            drop(reconnecting);
        }
    }

    async fn is_valid(&self, _session: &mut Box<Session>) -> Result<(), Self::Error> {
        Ok(()) // never called: `test_on_check_out` is off
    }

    fn has_broken(&self, session: &mut Box<Session>) -> bool {
        session.is_broken()
    }
}

/// Logs failed connection attempts; the waiting requests report only that no connection was free.
#[derive(Debug, Clone)]
pub struct LogSink(pub Counter);

impl ErrorSink<ConnectError> for LogSink {
    fn sink(&self, error: ConnectError) {
        if matches!(error, ConnectError::Unreachable) {
            return; // the slot that is reconnecting logs the reason
        }
        self.0.increment(1);
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot connect to postgres");
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
