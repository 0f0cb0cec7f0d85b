//! Opens the sessions of a pool, each set up for what the pool is for.

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

/// A place in the pool for which there is no connection is kept this long at least, and as long as anybody waits for one.
const PLACE_IS_KEPT: Duration = Duration::from_millis(250);

/// While PostgreSQL is away it is asked so often: bounds how late the first request after its return is served. A server that is
/// recovering starts a process for each attempt.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What a pool's sessions are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Rows by key, writes and transactions.
    Keys,
    /// Lists, counts, statistics: statements whose cost grows with the table.
    Lists,
    /// The readiness probe.
    Probe,
    /// The same as lists, on a replica.
    Replica,
    /// Who looks how far the replica is.
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

    /// Further settings of its sessions. A list cannot take several processors to itself: as many sessions read lists as
    /// processors may be busy with them.
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
    /// What the sessions are for.
    pub kind: PoolKind,
    /// Longest a statement may run.
    pub statement_timeout: Duration,
    /// Told whether the server is away.
    pub down: Arc<watch::Sender<bool>>,
    /// How many wait for a session.
    pub waiting: Arc<AtomicUsize>,
    /// Who asks for a server that is away.
    pub asking: Mutex<()>,
    /// Told why there is no session.
    pub errors: LogSink,
}

impl Manager {
    async fn open(&self) -> Result<Box<Session>, ConnectError> {
        let connection = self.conninfo.connect().await?;
        Ok(Box::new(Session::new(connection, self.statement_timeout, self.kind.settings()).await?))
    }

    /// Waits for the turn to ask for a server that is away, or for its return.
    async fn turn_to_ask(&self, until: Instant) -> Result<Option<MutexGuard<'_, ()>>, ConnectError> {
        let mut down = self.down.subscribe();
        let waiting = async {
            tokio::select! {
                biased;
                _ = down.wait_for(|down| !down) => None, // the sender is ours
                turn = self.asking.lock() => Some(turn),
            }
        };
        timeout_at(until, waiting).await.map_err(|_| ConnectError::Away)
    }
}

impl ManageConnection for Manager {
    // A box, because bb8 moves connections about at each checkout, and a session is large.
    type Connection = Box<Session>;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Box<Session>, Self::Error> {
        let mut until = Instant::now() + PLACE_IS_KEPT;
        loop {
            // While the server is away one place asks for it, and the others hear of its return.
            let asking = if *self.down.borrow() { Some(self.turn_to_ask(until).await?) } else { None };
            let begun = Instant::now();
            let opened = self.open().await;
            tracing::debug!(pool = ?self.kind, is_open = opened.is_ok(), duration_us = begun.elapsed().as_micros(), "a session");
            self.down.send_replace(opened.is_err());
            match opened {
                Err(error) if Instant::now() >= until => {
                    // bb8 opens a place for whoever begins to wait: who waits already would be left with nobody who asks.
                    if self.waiting.load(Ordering::Relaxed) == 0 {
                        return Err(error);
                    }
                    self.errors.sink(error);
                    until = Instant::now() + PLACE_IS_KEPT;
                }
                Err(_) => {}
                opened => return opened,
            }
            tokio::time::sleep(ASK_EVERY).await; // nobody announces that a database is back
            drop(asking);
        }
    }

    async fn is_valid(&self, _session: &mut Box<Session>) -> Result<(), Self::Error> {
        Ok(()) // never called: `test_on_check_out` is off
    }

    fn has_broken(&self, session: &mut Box<Session>) -> bool {
        session.is_broken()
    }
}

/// Puts failed connection attempts into the log; the requests that waited report only that none was free.
#[derive(Debug, Clone)]
pub struct LogSink(pub Counter);

impl ErrorSink<ConnectError> for LogSink {
    fn sink(&self, error: ConnectError) {
        if matches!(error, ConnectError::Away) {
            return; // whoever asks for it says why
        }
        self.0.increment(1);
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot connect to postgres");
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<ConnectError>> {
        Box::new(self.clone())
    }
}
