//! Deletes expired responses: in the background, a bounded number at a time, on one replica at a time.

use std::time::Duration;

use super::store;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Maximum number of keys deleted by one statement: a few milliseconds of work, so that no lock is held long.
const BATCH: i64 = 1000;

/// Maximum pause between two passes. An expired response is never sent; that it remains stored for up to a minute costs only
/// disk space.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs until shutdown is requested.
pub async fn run(pool: Pool, ttl: Duration, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // Expiry depends on time alone, so there is no event to wait for.
            () = tokio::time::sleep(ttl.min(PAUSE_MAX)) => {}
            () = shutdown.requested() => return,
        }
        loop {
            match store::delete_expired(&pool, ttl, BATCH).await {
                Ok(count) => {
                    if usize::try_from(BATCH).is_ok_and(|batch| count < batch) {
                        break;
                    }
                }
                Err(error) => {
                    // The next pass is soon enough; while the database is unavailable, requests report it.
                    tracing::debug!(error = &error as &dyn std::error::Error, "cannot delete expired idempotency keys");
                    break;
                }
            }
        }
    }
}
