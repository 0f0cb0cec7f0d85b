//! Generations of connections: all connections to a database become stale when their server is found not to be the primary any
//! more.
//!
//! A primary that was demoted, or replaced while it was suspended, keeps answering reads with outdated data on open
//! connections. When this is detected, the sessions of all pools of this database become stale at once. It is detected by a
//! rejected write (SQLSTATE 25006), by a query, or when a session is opened to another server. A replaced server that has not
//! been demoted is recognised by its timeline, which PostgreSQL increments at each promotion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two invalidations: a single server that stays read-only must not cost a new connection for each
/// rejected write.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A server with an older timeline is accepted if no other was found for this long: the database was restored from a backup.
const OLDER_REFUSED: Duration = Duration::from_secs(60);

/// The generations of one database. Cheap to clone; clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Generations(Arc<State>);

#[derive(Debug, Default)]
struct State {
    current: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The server of the current generation's sessions.
    server: Option<String>,
    /// The newest timeline seen.
    timeline: u32,
    /// Since when only servers with an older timeline have been found.
    older_since: Option<Instant>,
    /// When a generation was last invalidated because its server rejected writes.
    invalidated: Option<Instant>,
}

/// The generation in which a session was opened.
#[derive(Debug)]
pub struct Generation {
    generations: Generations,
    number: u64,
}

impl Generations {
    /// The current generation; must be read before the session is opened.
    pub fn current(&self) -> Generation {
        Generation { generations: self.clone(), number: self.0.current.load(Ordering::Relaxed) }
    }

    /// The generation of a session to this primary; sessions to another server become stale. `None` if the server has been
    /// replaced but not demoted.
    pub fn for_primary(&self, server: &str, timeline: Option<u32>) -> Option<Generation> {
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
            tracing::warn!(server, "another server is the primary; closing every connection to the previous one");
        }
        Some(self.current())
    }
}

impl Generation {
    /// Whether sessions of this generation must not be used any more.
    pub fn is_stale(&self) -> bool {
        self.generations.0.current.load(Ordering::Relaxed) != self.number
    }

    /// Invalidates the generation because its server rejects writes, unless it is stale already or the previous invalidation
    /// was a moment ago.
    pub fn invalidate(&self) {
        let mut known = self.generations.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stale() || known.invalidated.is_some_and(|at| at.elapsed() < MIN_INTERVAL) {
            return;
        }
        known.invalidated = Some(Instant::now());
        self.generations.0.current.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("postgres rejects writes; closing every connection to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn invalidation_affects_all_sessions_of_a_generation_and_not_the_next_one() {
        let generations = Generations::default();
        let (first, second) = (generations.current(), generations.clone().current());
        assert!(!first.is_stale());
        first.invalidate();
        assert!(first.is_stale() && second.is_stale());
        let next = generations.current();
        second.invalidate(); // a late detection of the same demotion
        assert!(!next.is_stale());
        next.invalidate();
        assert!(!next.is_stale(), "a permanently read-only server does not cost a connection per rejected write");
        tokio::time::advance(MIN_INTERVAL).await;
        next.invalidate();
        assert!(next.is_stale());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_to_another_primary_makes_earlier_ones_stale_and_a_replaced_one_is_refused() {
        let generations = Generations::default();
        let first = generations.for_primary("a", Some(1)).expect("the first of all");
        let again = generations.for_primary("a", Some(1)).expect("the same");
        assert!(!first.is_stale() && !again.is_stale());
        let promoted = generations.for_primary("b", Some(2)).expect("a newer timeline");
        assert!(first.is_stale() && !promoted.is_stale());
        assert!(generations.for_primary("a", Some(1)).is_none(), "replaced but not demoted");
        assert!(!promoted.is_stale());
        tokio::time::advance(OLDER_REFUSED).await;
        assert!(generations.for_primary("b", Some(2)).is_some());
        assert!(generations.for_primary("a", Some(1)).is_none(), "the newer server was found meanwhile");
        tokio::time::advance(OLDER_REFUSED).await;
        assert!(
            generations.for_primary("a", Some(1)).is_some(),
            "the only server found for a minute: a restored database"
        );
        assert!(promoted.is_stale());
    }
}
