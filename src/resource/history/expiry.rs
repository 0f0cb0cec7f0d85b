//! Removes entries of histories whose time has passed: in the background, a bounded number at a time, on one replica at a time.

use std::time::Duration;

use metrics::Counter;

use super::super::definition::Resource;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

/// Name of the counter of entries that were removed.
pub const ENTRIES_REMOVED: &str = "history_entries_removed_total";

/// Removed by one statement: a few milliseconds, so that no lock is held long.
const BATCH: i64 = 1000;

/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Works until the shutdown is requested.
pub async fn run(resources: &'static [&'static Resource], pool: Pool, retention: Duration, shutdown: Shutdown) {
    for resource in resources.iter().filter(|resource| resource.sql.history.is_some()) {
        removed(&resource.db.prune).increment(0);
    }
    loop {
        tokio::select! {
            // What ends here is a time itself, so there is nothing else to wait for.
            () = tokio::time::sleep(retention.min(PAUSE_MAX)) => {}
            () = shutdown.requested() => return,
        }
        for resource in resources {
            let Some(history) = &resource.sql.history else { continue };
            if let Err(error) = prune((&resource.db.prune, history.prune), &pool, retention).await {
                // The next look is soon enough; while the database is away, requests report that.
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
