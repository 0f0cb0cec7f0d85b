//! Outcomes of backups and restore drills, as stored in the table `maintenance_runs` and exported by `/metrics`.

use std::time::Duration;

use tokio_postgres::Client;

use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::Pool;
use crate::shutdown::Shutdown;

const RECORD: &str = "insert into maintenance_runs (kind, started_at, finished_at, succeeded, size_bytes, message)
    values ($1, now() - make_interval(secs => $2), now(), $3, $4, $5)";

static LOOK: DbOperation = DbOperation::new("look", "maintenance_runs");

/// The newest run of each kind and outcome.
const NEWEST: &str = "
    select distinct on (kind, succeeded) kind, succeeded, extract(epoch from finished_at)::float8,
        extract(epoch from finished_at - started_at)::float8, size_bytes::float8
    from maintenance_runs order by kind, succeeded, finished_at desc";

/// Pause between two reads; monitoring systems scrape no more often than this.
const PAUSE: Duration = Duration::from_secs(15);

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Task {
    /// A backup.
    Backup,
    /// A restore into a temporary database.
    RestoreDrill,
}

/// A run and its outcome.
#[derive(Debug)]
pub struct Run {
    /// Its kind.
    pub task: Task,
    /// How long it took.
    pub duration: Duration,
    /// Whether it succeeded.
    pub succeeded: bool,
    /// The size of the backup.
    pub size_bytes: Option<u64>,
    /// Why it failed, or what was made.
    pub message: String,
}

/// Stores a run.
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
            // The next read repeats it; requests report an unreachable database.
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the runs of backups");
        }
        tokio::select! {
            // Polling: nothing announces a new row.
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
