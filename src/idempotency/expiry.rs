//! Forgets kept answers whose time has passed: in the background, a bounded number at a time, on one replica at a time.

use std::time::Duration;

use super::store;
use crate::db::error::StoreError;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Removed by one statement: a few milliseconds, so that no lock is held long.
const BATCH: u32 = 1000;

/// The longest pause between two looks. An answer is not given any more once its time has passed; that it is still
/// stored for a minute costs nothing but room.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Works until the shutdown is requested.
pub async fn run(pool: Pool, ttl: Duration, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // What ends here is a time itself, so there is nothing else to wait for.
            () = tokio::time::sleep(ttl.min(PAUSE_MAX)) => {}
            () = shutdown.requested() => return,
        }
        if let Err(error) = forget_all(&pool, ttl, BATCH).await {
            // The next look is soon enough; while the database is away, requests report that.
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot forget idempotency keys");
        }
    }
}

/// Removes every answer whose time has passed, up to `batch` with each statement, and returns the number of statements.
///
/// # Errors
/// The pool's.
pub async fn forget_all(pool: &Pool, ttl: Duration, batch: u32) -> Result<u32, StoreError> {
    let mut statements = 1;
    while store::forget(pool, ttl, i64::from(batch)).await? >= batch as usize {
        statements += 1;
    }
    Ok(statements)
}
