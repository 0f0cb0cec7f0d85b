//! How long sessions may be used: until one of them finds that its server takes no changes any more.
//!
//! A primary that was demoted while connections to it are open answers reads as of then, and refuses changes (SQLSTATE 25006).
//! Whoever learns of it ends the sessions of all pools of this database at once; new ones are opened as the settings say, with
//! several hosts and `target_session_attrs=read-write` to the primary that there is now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A server that stays read-only, and is the only one, must not cost a connection for each change that it refuses.
const SHORTEST: Duration = Duration::from_secs(1);

/// The terms of one database. Cheap to clone; clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct Terms(Arc<State>);

#[derive(Debug, Default)]
struct State {
    current: AtomicU64,
    ended: Mutex<Option<Instant>>,
}

/// The term in which a session was opened.
#[derive(Debug)]
pub struct Term {
    terms: Terms,
    number: u64,
}

impl Terms {
    /// The current one; to be asked before the session is opened.
    pub fn current(&self) -> Term {
        Term { terms: self.clone(), number: self.0.current.load(Ordering::Relaxed) }
    }
}

impl Term {
    /// Whether sessions of this term must not be used any more.
    pub fn is_over(&self) -> bool {
        self.terms.0.current.load(Ordering::Relaxed) != self.number
    }

    /// Ends it, unless it is over already or began a moment ago.
    pub fn end(&self) {
        let mut ended = self.terms.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() || ended.is_some_and(|at| at.elapsed() < SHORTEST) {
            return;
        }
        *ended = Some(Instant::now());
        self.terms.0.current.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("postgres takes no changes any more; every connection to it is closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_a_term_ends_it_for_all_and_not_the_next_one() {
        let terms = Terms::default();
        let (first, second) = (terms.current(), terms.clone().current());
        assert!(!first.is_over());
        first.end();
        assert!(first.is_over() && second.is_over());
        let next = terms.current();
        second.end(); // it learns of the same demotion late
        assert!(!next.is_over());
        next.end();
        assert!(!next.is_over(), "a server that is read-only for good is not left at each refusal");
        tokio::time::advance(SHORTEST).await;
        next.end();
        assert!(next.is_over());
    }
}
