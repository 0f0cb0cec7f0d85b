//! A session that somebody has taken out of the pool, and what becomes of it when they drop it in the middle.
//!
//! Whoever is dropped while PostgreSQL works for them (the client left, a deadline passed) leaves a statement behind.
//! It is cancelled, and its end is waited for, before anybody else gets the session: until then the session counts as
//! used, so that PostgreSQL never works on more statements, nor for more connections, than the pool has room for.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bb8::PooledConnection;
use tokio::runtime::Handle;

use super::manager::Manager;
use super::session::Session;

/// Name of the counter of statements that were given up before their end.
pub const ABANDONED: &str = "db_statements_abandoned_total";

/// Longest that a cancelled statement may take to end; then its connection is closed, and PostgreSQL notices that
/// (`client_connection_check_interval`). Cancelling takes a few milliseconds, unless the server is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

type Pooled = PooledConnection<'static, Manager>;

/// A session out of the pool; it goes back when this is dropped, at once or after what runs on it has ended.
pub struct Lease(Option<Pooled>);

impl Lease {
    /// Takes charge of a session.
    pub fn new(session: Pooled) -> Self {
        Self(Some(session))
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0.as_ref().expect("it is taken out when dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Session {
        self.0.as_mut().expect("it is taken out when dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_left = |session: &Pooled| !session.is_broken() && (session.is_busy() || session.may_be_in_transaction());
        let Some(session) = self.0.take().filter(is_left) else { return };
        if session.is_busy() {
            metrics::counter!(ABANDONED).increment(1);
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(wind_up(session))),
            Err(_) => session.give_up(), // the process is ending
        }
    }
}

/// Ends what runs on a session and the transaction that is open, and gives it back, or closes it.
async fn wind_up(session: Pooled) {
    if !tokio::time::timeout(PATIENCE, session.recover()).await.unwrap_or(false) {
        tracing::warn!("a statement or transaction could not be ended; its connection is closed");
        session.give_up();
    }
}
