//! Limits the number of keys stored per principal.
//!
//! Keys are counted in the background, so that requests pay nothing for it: a principal that exceeds the limit is refused new
//! keys from the next count on, which may be some seconds late. Retries of completed requests still get their responses.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::request::owner;
use super::store;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Interval between two counts.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The principals that have reached the limit. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct KeyLimit(Arc<RwLock<HashSet<String>>>);

impl KeyLimit {
    /// Starts counting until shutdown; at most `most` keys are stored per principal.
    pub fn start(pool: Pool, most: u32, shutdown: Shutdown) -> Self {
        let key_limit = Self::default();
        let counted = key_limit.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // The interval itself is the limit on counting, so there is no event to wait for.
                    () = tokio::time::sleep(COUNT_EVERY) => {}
                    () = shutdown.requested() => return,
                }
                match store::owners_at_limit(&pool, i64::from(most)).await {
                    Ok(owners) => *counted.0.write().unwrap_or_else(PoisonError::into_inner) = owners,
                    // The next count is soon enough; while the database is unavailable, requests report it.
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "cannot count idempotency keys");
                    }
                }
            }
        });
        key_limit
    }

    /// Whether the owner of a key has reached the limit.
    pub fn is_reached(&self, key: &str) -> bool {
        owner(key).is_some_and(|owner| self.0.read().unwrap_or_else(PoisonError::into_inner).contains(owner))
    }
}
