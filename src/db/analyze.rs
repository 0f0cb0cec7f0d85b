//! Analyses a table to which many rows were added at once, so that the planner has current statistics before autovacuum runs.
//!
//! This runs in the background, one table at a time, and outside of the transaction that added the rows. A failure is only
//! logged: the rows are stored, and autovacuum will analyse the table.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use tokio_postgres::GenericClient;

use super::error::StoreError;
use super::operation::DbOperation;
use super::pool::Pool;
use crate::shutdown::Shutdown;

/// Analyses a table to which this many rows were added, if that changes its statistics; returns whether it did.
const ANALYZE: &str = "select pycrudapi_analyze($1, $2)";

/// Fewer rows change no plan and do not justify the query.
const MIN_ROWS: i64 = 1000;

/// Counts the rows added to a table since it was last analysed by this process.
#[derive(Debug)]
pub struct Growth {
    table: &'static str,
    operation: DbOperation,
    added: AtomicI64,
    grown: Notify,
}

impl Growth {
    /// Creates a counter for a table of the schema.
    pub fn new(table: &'static str) -> Self {
        Self { table, operation: DbOperation::new("analyze", table), added: AtomicI64::new(0), grown: Notify::new() }
    }

    /// Reports rows that were added and committed.
    pub fn add(&self, rows: u64) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.added.fetch_add(rows, Ordering::Relaxed) + rows >= MIN_ROWS {
            self.grown.notify_one();
        }
    }

    /// Analyses the table whenever it has grown, until the shutdown is requested.
    pub async fn run(&self, pool: Pool, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = self.grown.notified() => {}
                () = shutdown.requested() => return,
            }
            let added = self.added.load(Ordering::Relaxed);
            match pool.write(&self.operation, ANALYZE, &[&self.table, &added]).await {
                Ok(rows) => {
                    if rows.first().is_some_and(|row| row.get(0)) {
                        self.added.fetch_sub(added, Ordering::Relaxed);
                    }
                }
                Err(error) => failed(self.table, &error),
            }
        }
    }
}

/// Analyses a table to which rows were added and committed on this connection.
pub async fn analyze(client: &impl GenericClient, table: &'static str, added: u64) {
    let added = i64::try_from(added).unwrap_or(i64::MAX);
    if let Err(error) = client.query(ANALYZE, &[&table, &added]).await {
        failed(table, &error.into());
    }
}

fn failed(table: &'static str, error: &StoreError) {
    tracing::warn!(error = error as &dyn std::error::Error, table, "cannot analyze a table that has grown");
}
