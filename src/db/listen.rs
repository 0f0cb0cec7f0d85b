//! Keeps one value of the database up to date on a separate connection that uses `LISTEN`: the value is read again after each
//! notification and at each heartbeat.
//!
//! While the connection is lost, or silent for longer than its heartbeat, the value counts as unknown, not as unchanged. This
//! bounds how long a server that is cut off from PostgreSQL can use an outdated value. A demoted primary is also detected here,
//! for all sessions ([`super::generation`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::connect::{ConnectError, Connection, is_read_only};
use super::conninfo::ConnInfo;
use super::error::StoreError;

/// The value is read at least this often: a connection loss that the network does not report is detected within this time plus
/// [`DEADLINE`].
const HEARTBEAT: Duration = Duration::from_millis(300);
/// Longest wait for the result of one statement.
const DEADLINE: Duration = Duration::from_secs(1);
/// Longest time for opening the connection; several hosts are tried in turn.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Delay before the next connection attempt: there is no notification when a database becomes reachable, and one that is
/// overloaded must not receive continuous attempts.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The value to keep up to date, and the channel that announces its changes.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// `listen <channel>`.
    pub listen: &'static str,
    /// The table that contains the value: nothing is queried before it exists.
    pub table: &'static str,
    /// A query that returns the value in one row.
    pub current: &'static str,
}

/// A value, and when it was current.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The value.
    pub value: Uuid,
    /// When its last read began.
    pub at: Instant,
}

impl Seen {
    /// The value, if it was current within this time.
    pub fn within(self, age: Duration) -> Option<Uuid> {
        (self.at.elapsed() < age).then_some(self.value)
    }
}

/// Keeps the sender up to date for as long as it is polled; `None` while the value is unknown.
pub async fn listen(conninfo: ConnInfo, topic: Topic, sender: Arc<watch::Sender<Option<Seen>>>) {
    let mut lost = false;
    loop {
        let Err(error) = listen_once(&conninfo, topic, &sender, &mut lost).await;
        sender.send_replace(None);
        // Once per loss: callers that need the value meanwhile query the database and report its errors. A database that has
        // not been migrated yet is not a loss.
        if !lost && !error.is_missing_table() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                listen = topic.listen,
                "cannot listen for changes"
            );
            lost = true;
        }
        tokio::time::sleep(RETRY_DELAY).await; // there is no notification when a database becomes reachable
    }
}

async fn listen_once(
    conninfo: &ConnInfo,
    topic: Topic,
    sender: &watch::Sender<Option<Seen>>,
    lost: &mut bool,
) -> Result<Infallible, StoreError> {
    let connecting = tokio::time::timeout(CONNECT_DEADLINE, conninfo.connect());
    let Connection { client, driver, announced, generation, .. } = match connecting.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectError::Postgres(error))) => return Err(error.into()),
        Ok(Err(_)) | Err(_) => return Err(StoreError::unavailable("cannot connect to postgres")),
    };
    let reading = async {
        let exists = within(DEADLINE, client.query_one("select to_regclass($1) is not null", &[&topic.table])).await?;
        if !exists.try_get::<_, bool>(0)? {
            return Err(StoreError::missing_table());
        }
        within(DEADLINE, client.batch_execute(topic.listen)).await?;
        let current = within(DEADLINE, client.prepare(topic.current)).await?;
        loop {
            let at = Instant::now();
            let row = within(DEADLINE, client.query_one(&current, &[])).await?;
            sender.send_replace(Some(Seen { value: row.try_get(0)?, at }));
            if std::mem::take(lost) {
                tracing::info!(listen = topic.listen, "listening for changes again");
            }
            // There is no notification of a demotion, and reads alone would not reveal it.
            if conninfo.requires_primary() && within(DEADLINE, is_read_only(&client)).await? {
                generation.invalidate();
            }
            if generation.is_stale() {
                return Err(StoreError::unavailable("the server is not the primary any more"));
            }
            // A change announced during the read has left its permit, so this returns at once. A timeout is the heartbeat.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_current_for_a_time_after_its_read_began() {
        let seen = Seen { value: Uuid::nil(), at: Instant::now() };
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(seen.within(Duration::from_millis(100)), Some(Uuid::nil()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(seen.within(Duration::from_millis(100)), None);
    }
}
