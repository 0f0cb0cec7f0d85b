//! A session checked out of the pool, and its cleanup if it is dropped while a statement is running.
//!
//! If a caller is dropped while PostgreSQL is working for it (the client disconnected, a deadline passed), a statement is still
//! running on the session. The statement is cancelled, and its end is awaited, before the session becomes available again.
//! Until then the session counts as used, so PostgreSQL never runs more statements, or holds more connections, than the pool
//! allows.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bb8::PooledConnection;
use tokio::runtime::Handle;

use super::manager::Manager;
use super::session::Session;

/// Name of the counter of statements that were abandoned before they ended.
pub const ABANDONED: &str = "db_statements_abandoned_total";

/// Longest time for a cancelled statement to end; then its connection is closed, which PostgreSQL detects
/// (`client_connection_check_interval`). Cancelling takes a few milliseconds unless the server hangs.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

type Pooled = PooledConnection<'static, Manager>;

/// A session checked out of the pool; when dropped, it returns to the pool, at once or after its running statement has ended.
pub struct PooledSession(Option<Pooled>);

impl PooledSession {
    /// Wraps a session.
    pub fn new(session: Pooled) -> Self {
        Self(Some(session))
    }
}

impl Deref for PooledSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0.as_ref().expect("only `drop` takes it out")
    }
}

impl DerefMut for PooledSession {
    fn deref_mut(&mut self) -> &mut Session {
        self.0.as_mut().expect("only `drop` takes it out")
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        let is_in_use =
            |session: &Pooled| !session.is_broken() && (session.is_busy() || session.may_be_in_transaction());
        let Some(session) = self.0.take().filter(is_in_use) else { return };
        if session.is_busy() {
            metrics::counter!(ABANDONED).increment(1);
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(clean_up(session))),
            Err(_) => session.mark_broken(), // the process is exiting
        }
    }
}

/// Ends what is running on a session and returns it to the pool, or closes it.
async fn clean_up(session: Pooled) {
    if !tokio::time::timeout(CANCEL_TIMEOUT, session.recover()).await.unwrap_or(false) {
        tracing::warn!("a statement or transaction could not be ended; its connection is closed");
        session.mark_broken();
    }
}
