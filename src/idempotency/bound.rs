//! How many keys are kept of one principal.
//!
//! Counted in the background, so that no request pays for it: whoever has too many is refused new keys from then on, and
//! may have added those of some seconds. Retries of requests that were carried out get their answers all the same.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::request::owner;
use super::store;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Between two counts.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The principals of whom too many keys are kept. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Bound(Arc<RwLock<HashSet<String>>>);

impl Bound {
    /// Begins to count, until the shutdown; `most` keys are kept of one principal.
    pub fn start(pool: Pool, most: u32, shutdown: Shutdown) -> Self {
        let bound = Self::default();
        let counted = bound.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What is bounded here is how often somebody counts, so there is nothing else to wait for.
                    () = tokio::time::sleep(COUNT_EVERY) => {}
                    () = shutdown.requested() => return,
                }
                match store::crowded(&pool, i64::from(most)).await {
                    Ok(owners) => *counted.0.write().unwrap_or_else(PoisonError::into_inner) = owners,
                    // The next count is soon enough; while the database is away, requests report that.
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "cannot count idempotency keys");
                    }
                }
            }
        });
        bound
    }

    /// Whether the owner of a key may not add it.
    pub fn is_reached(&self, key: &str) -> bool {
        owner(key).is_some_and(|owner| self.0.read().unwrap_or_else(PoisonError::into_inner).contains(owner))
    }
}
