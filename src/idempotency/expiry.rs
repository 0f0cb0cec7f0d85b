//! Deletes expired responses in the background: a bounded number per statement, on one replica at a time.

use std::time::Duration;

use super::store;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Maximum number of keys deleted by one statement: a few milliseconds of work, so that no lock is held long.
const BATCH: u32 = 1000;

/// Maximum pause between two passes. An expired response is never sent; that it remains stored for up to a minute costs only
/// disk space.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs until shutdown is requested.
pub async fn run(pool: Pool, ttl: Duration, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // What ends here is a time itself, so there is nothing else to wait for.
            () = tokio::time::sleep(ttl.min(PAUSE_MAX)) => {}
            () = shutdown.requested() => return,
        }
        if let Err(error) = delete_all_expired(&pool, ttl, BATCH).await {
            // The next pass is soon enough; while the database is unavailable, requests report it.
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot delete expired idempotency keys");
        }
    }
}

/// Deletes every expired response, at most `batch` with each statement, and returns the number of statements.
///
/// # Errors
/// The pool's.
pub async fn delete_all_expired(pool: &Pool, ttl: Duration, batch: u32) -> Result<u32, StoreError> {
    let mut statements = 1;
    while store::delete_expired(pool, ttl, i64::from(batch)).await? >= batch as usize {
        statements += 1;
    }
    Ok(statements)
}
