//! Removes expired history entries: in the background, a bounded number at a time, on one replica at a time.

use std::time::Duration;

use metrics::Counter;

use super::super::definition::Resource;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Name of the counter of removed entries.
pub const ENTRIES_REMOVED: &str = "history_entries_removed_total";

/// Maximum number of entries removed by one statement: a few milliseconds of work, so that no lock is held long.
const BATCH: i64 = 1000;

/// Maximum pause between two passes.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs until shutdown is requested.
pub async fn run(resources: &'static [&'static Resource], pool: Pool, retention: Duration, shutdown: Shutdown) {
    for resource in resources.iter().filter(|resource| resource.sql.history.is_some()) {
        removed(&resource.db.prune).increment(0);
    }
    loop {
        tokio::select! {
            // Expiry depends on time alone, so there is no event to wait for.
            () = tokio::time::sleep(retention.min(PAUSE_MAX)) => {}
            () = shutdown.requested() => return,
        }
        for resource in resources {
            let Some(history) = &resource.sql.history else { continue };
            if let Err(error) = prune((&resource.db.prune, history.prune), &pool, retention).await {
                // The next pass is soon enough; while the database is unavailable, requests report it.
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot prune a history");
            }
        }
    }
}

fn removed(operation: &DbOperation) -> Counter {
    metrics::counter!(ENTRIES_REMOVED, "db_collection_name" => operation.collection)
}

async fn prune(
    (operation, sql): (&DbOperation, &'static str),
    pool: &Pool,
    retention: Duration,
) -> Result<(), StoreError> {
    loop {
        let rows = pool.write(operation, sql, &[&retention.as_secs_f64(), &BATCH]).await?;
        let count: i64 = rows.first().ok_or(StoreError::Missing)?.try_get(0)?;
        removed(operation).increment(u64::try_from(count).unwrap_or_default());
        if count < BATCH {
            return Ok(());
        }
    }
}
