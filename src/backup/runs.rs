//! What became of backups and drills, as the table `maintenance_runs` keeps it and `/metrics` shows it.

use std::time::Duration;

use tokio_postgres::Client;

use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

const RECORD: &str = "insert into maintenance_runs (kind, started_at, finished_at, succeeded, size_bytes, message)
    values ($1, now() - make_interval(secs => $2), now(), $3, $4, $5)";

static LOOK: DbOperation = DbOperation::new("look", "maintenance_runs");

/// The newest of each kind and outcome.
const NEWEST: &str = "
    select distinct on (kind, succeeded) kind, succeeded, extract(epoch from finished_at)::float8,
        extract(epoch from finished_at - started_at)::float8, size_bytes::float8
    from maintenance_runs order by kind, succeeded, finished_at desc";

/// Between two looks; a monitor asks no more often than this.
const PAUSE: Duration = Duration::from_secs(15);

/// What was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Task {
    /// A backup.
    Backup,
    /// A restore beside the service.
    RestoreDrill,
}

/// What became of it.
#[derive(Debug)]
pub struct Run {
    /// What was run.
    pub task: Task,
    /// How long it took.
    pub duration: Duration,
    /// Whether all went well.
    pub succeeded: bool,
    /// How long the backup is.
    pub size_bytes: Option<u64>,
    /// Why not, or what was made.
    pub message: String,
}

/// Writes it down.
///
/// # Errors
/// When the database cannot be written.
pub async fn record(client: &Client, run: &Run) -> Result<(), tokio_postgres::Error> {
    let kind: &str = run.task.into();
    let bytes = run.size_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    client.execute(RECORD, &[&kind, &run.duration.as_secs_f64(), &run.succeeded, &bytes, &run.message]).await.map(drop)
}

/// Keeps the gauges of `/metrics` up to date until the shutdown is requested.
pub async fn watch(pool: Pool, shutdown: Shutdown) {
    loop {
        if let Err(error) = show(&pool).await {
            // The next look is soon enough; while the database is away, requests report that.
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the runs of backups");
        }
        tokio::select! {
            // What ends here is a time itself, so there is nothing else to wait for.
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.requested() => return,
        }
    }
}

async fn show(pool: &Pool) -> Result<(), StoreError> {
    let unreadable = |error| StoreError::Internal(std::sync::Arc::new(error));
    for row in pool.read(&LOOK, NEWEST, &[]).await? {
        let kind: &str = row.try_get(0).map_err(unreadable)?;
        let succeeded: bool = row.try_get(1).map_err(unreadable)?;
        let finished: f64 = row.try_get(2).map_err(unreadable)?;
        let seconds: f64 = row.try_get(3).map_err(unreadable)?;
        let bytes: Option<f64> = row.try_get(4).map_err(unreadable)?;
        match (kind, succeeded) {
            ("backup", true) => {
                metrics::gauge!("backup_last_success_timestamp_seconds").set(finished);
                metrics::gauge!("backup_last_duration_seconds").set(seconds);
                metrics::gauge!("backup_last_size_bytes").set(bytes.unwrap_or_default());
            }
            ("backup", false) => metrics::gauge!("backup_last_failure_timestamp_seconds").set(finished),
            (_, true) => {
                metrics::gauge!("restore_drill_last_success_timestamp_seconds").set(finished);
                metrics::gauge!("restore_drill_last_duration_seconds").set(seconds);
            }
            (_, false) => metrics::gauge!("restore_drill_last_failure_timestamp_seconds").set(finished),
        }
    }
    Ok(())
}
