//! How long sessions may be used: until it is known that they lead to a server that is not the primary any more.
//!
//! A primary that was demoted, or replaced while it stood still, answers reads as of then while connections to it are open.
//! Whoever learns of it ends the sessions of all pools of this database at once: by a change that it refuses (SQLSTATE 25006), by
//! asking it, or because a session was opened to another server. A server that was replaced and does not know it yet is told by
//! its timeline, which PostgreSQL counts up at each promotion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A server that stays read-only, and is the only one, must not cost a connection for each change that it refuses.
const SHORTEST: Duration = Duration::from_secs(1);

/// A server with an older timeline is taken after all when no other can be had for so long: a database was restored.
const OLDER_REFUSED: Duration = Duration::from_secs(60);

/// The terms of one database. Cheap to clone; clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct Terms(Arc<State>);

#[derive(Debug, Default)]
struct State {
    current: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where the sessions of this term lead.
    server: Option<String>,
    /// The newest timeline that a server had.
    timeline: u32,
    /// Since when nobody but a server with an older one was found.
    older_since: Option<Instant>,
    /// When a term was last ended by a server that takes no changes.
    ended: Option<Instant>,
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

    /// The term of a session that leads to this primary; sessions that lead to another end. `None` when the server has been
    /// replaced and does not know it.
    pub fn of_primary(&self, server: &str, timeline: Option<u32>) -> Option<Term> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timeline) = timeline {
            if timeline < known.timeline {
                let since = *known.older_since.get_or_insert_with(Instant::now);
                if since.elapsed() < OLDER_REFUSED {
                    return None;
                }
            }
            known.timeline = timeline;
            known.older_since = None;
        }
        let before = known.server.replace(server.to_owned());
        if before.is_some_and(|before| before != server) {
            self.0.current.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(server, "another server is the primary; every connection to the one before is closed");
        }
        Some(self.current())
    }
}

impl Term {
    /// Whether sessions of this term must not be used any more.
    pub fn is_over(&self) -> bool {
        self.terms.0.current.load(Ordering::Relaxed) != self.number
    }

    /// Ends it, because the server takes no changes any more; unless it is over already, or one ended a moment ago.
    pub fn end(&self) {
        let mut known = self.terms.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_over() || known.ended.is_some_and(|at| at.elapsed() < SHORTEST) {
            return;
        }
        known.ended = Some(Instant::now());
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

    #[tokio::test(start_paused = true)]
    async fn sessions_to_another_primary_end_those_before_and_a_replaced_one_is_refused() {
        let terms = Terms::default();
        let first = terms.of_primary("a", Some(1)).expect("the first of all");
        let again = terms.of_primary("a", Some(1)).expect("the same");
        assert!(!first.is_over() && !again.is_over());
        let promoted = terms.of_primary("b", Some(2)).expect("a newer timeline");
        assert!(first.is_over() && !promoted.is_over());
        assert!(terms.of_primary("a", Some(1)).is_none(), "it does not know that it was replaced");
        assert!(!promoted.is_over());
        tokio::time::advance(OLDER_REFUSED).await;
        assert!(terms.of_primary("b", Some(2)).is_some());
        assert!(terms.of_primary("a", Some(1)).is_none(), "the newer one was there meanwhile");
        tokio::time::advance(OLDER_REFUSED).await;
        assert!(terms.of_primary("a", Some(1)).is_some(), "it is the only one, for a minute: a database was restored");
        assert!(promoted.is_over());
    }
}
