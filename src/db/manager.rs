//! Opens the sessions of a pool, each set up for what the pool is for.

use std::sync::Arc;
use std::time::Duration;

use bb8::ManageConnection;
use tokio::sync::watch;

use super::connect::ConnectError;
use super::conninfo::ConnInfo;
use super::session::Session;

/// After a connection attempt that failed its place in the pool is kept this long: bounds the attempts, and how late the
/// first request after PostgreSQL's return is served.
const PAUSE_BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

/// What a pool's sessions are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Rows by key, writes and transactions.
    Keys,
    /// Lists, counts, statistics: statements whose cost grows with the table.
    Lists,
    /// The readiness probe.
    Probe,
}

impl PoolKind {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Lists => "lists",
            Self::Probe => "probe",
        }
    }

    /// Further settings of its sessions. A list cannot take several processors to itself: as many sessions read lists as
    /// processors may be busy with them.
    fn settings(self) -> &'static str {
        match self {
            Self::Lists => "; set max_parallel_workers_per_gather = 0",
            Self::Keys | Self::Probe => "",
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
}

impl ManageConnection for Manager {
    // A box, because bb8 moves connections about at each checkout, and a session is large.
    type Connection = Box<Session>;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Box<Session>, Self::Error> {
        let opening = async {
            let connection = self.conninfo.connect().await?;
            Ok(Box::new(Session::new(connection, self.statement_timeout, self.kind.settings()).await?))
        };
        let opened = opening.await;
        self.down.send_replace(opened.is_err());
        if opened.is_err() {
            // Whoever wants a connection next is the next to try; this keeps many of them from trying without pause.
            tokio::time::sleep(PAUSE_BETWEEN_ATTEMPTS).await;
        }
        opened
    }

    async fn is_valid(&self, _session: &mut Box<Session>) -> Result<(), Self::Error> {
        Ok(()) // never called: `test_on_check_out` is off
    }

    fn has_broken(&self, session: &mut Box<Session>) -> bool {
        session.is_broken()
    }
}
