//! Keeps one value of the database up to date on a connection of its own that listens (`LISTEN`): it is read anew at each
//! notification, and at a heartbeat besides.
//!
//! While the connection is lost, or silent for longer than its heartbeat, the value is unknown rather than old. That
//! bounds how long a server that was cut off from PostgreSQL may believe in the past. A primary that was demoted is noticed here,
//! too, for all sessions ([`super::term`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::connect::{ConnectError, Connection, is_read_only};
use super::conninfo::ConnInfo;
use super::error::StoreError;

/// The value is read at least this often: a loss of which the network does not tell is noticed within this and
/// [`DEADLINE`].
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest wait for the answer to one statement.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest that opening the connection may take; several hosts are tried in turn.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before the next attempt to connect: a database that comes back announces it to nobody, and one that struggles
/// must not be asked without pause.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// What is kept up to date, and how changes are announced.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// `listen <channel>`.
    pub listen: &'static str,
    /// The table of the value: nothing is asked before it is there.
    pub table: &'static str,
    /// A statement that answers the value, in one row.
    pub current: &'static str,
}

/// Keeps the sender at the value for as long as it is polled; `None` while it is unknown.
pub async fn listen(conninfo: ConnInfo, topic: Topic, sender: Arc<watch::Sender<Option<Uuid>>>) {
    let mut lost = false;
    loop {
        let Err(error) = listen_once(&conninfo, topic, &sender, &mut lost).await;
        sender.send_replace(None);
        // Once per loss: whoever needs the value meanwhile asks the database, and reports what that says. A database
        // that is about to be migrated is no loss.
        if !lost && !error.is_missing_table() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                listen = topic.listen,
                "cannot listen for changes"
            );
            lost = true;
        }
        tokio::time::sleep(RETRY_DELAY).await; // nobody announces that a database is back; the value counts as unknown so long
    }
}

async fn listen_once(
    conninfo: &ConnInfo,
    topic: Topic,
    sender: &watch::Sender<Option<Uuid>>,
    lost: &mut bool,
) -> Result<Infallible, StoreError> {
    let connecting = tokio::time::timeout(CONNECT_DEADLINE, conninfo.connect());
    let Connection { client, driver, announced, term, .. } = match connecting.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectError::Postgres(error))) => return Err(error.into()),
        Ok(Err(_)) | Err(_) => return Err(StoreError::unavailable("cannot connect to postgres")),
    };
    let reading = async {
        let there = within(DEADLINE, client.query_one("select to_regclass($1) is not null", &[&topic.table])).await?;
        if !there.try_get::<_, bool>(0)? {
            return Err(StoreError::missing_table());
        }
        within(DEADLINE, client.batch_execute(topic.listen)).await?;
        let current = within(DEADLINE, client.prepare(topic.current)).await?;
        loop {
            let row = within(DEADLINE, client.query_one(&current, &[])).await?;
            let value = row.try_get(0)?;
            sender.send_replace(Some(value));
            if std::mem::take(lost) {
                tracing::info!(listen = topic.listen, "listening for changes again");
            }
            // Nobody announces a demotion, and reads alone would not tell of it.
            if conninfo.wants_primary() && within(DEADLINE, is_read_only(&client)).await? {
                term.end();
            }
            if term.is_over() {
                return Err(StoreError::unavailable("the server is not the primary any more"));
            }
            // A change announced during the read has left its permit, so this returns at once. Time passing is fine.
            let _ = tokio::time::timeout(HEARTBEAT, announced.notified()).await;
        }
    };
    tokio::select! {
        _ = driver => Err(StoreError::unavailable("the connection was closed")),
        ended = reading => ended,
    }
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::unavailable("no answer on the connection that listens for changes")),
    }
}
