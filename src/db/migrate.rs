//! Schema migrations, embedded in the binary and run by refinery under an advisory lock.
//!
//! Migrations are append-only. Any number of processes may run them at once: one works, the others wait and then find
//! nothing to do.

use std::time::Duration;

use refinery::{Migration, Runner};
use thiserror::Error;
use tokio_postgres::Client;

use super::conninfo::ConnInfo;
use super::pool::Pool;

/// Names and texts, in the order they are applied; the number is the version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__passengers", include_str!("../../migrations/0001_passengers.sql")),
    ("V2__air_quality", include_str!("../../migrations/0002_air_quality.sql")),
    ("V3__steps", include_str!("../../migrations/0003_steps.sql")),
    ("V4__versions", include_str!("../../migrations/0004_versions.sql")),
    ("V5__idempotency_keys", include_str!("../../migrations/0005_idempotency_keys.sql")),
    ("V6__passenger_lists", include_str!("../../migrations/0006_passenger_lists.sql")),
    ("V7__analyze", include_str!("../../migrations/0007_analyze.sql")),
];

/// The key of the advisory lock; any constant does as long as it never changes ("pycr" in ASCII).
const LOCK_KEY: i64 = 0x7079_6372;

/// Longest wait for another process that is migrating.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

const APPLIED_VERSION: &str = "select coalesce(max(version), 0) from refinery_schema_history";

/// Why the schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// No connection, or it was lost.
    #[error("cannot reach postgres")]
    Connect(#[source] tokio_postgres::Error),
    /// A migration failed; its transaction was rolled back.
    #[error("a migration failed")]
    Run(#[source] refinery::Error),
    /// An embedded migration's name is malformed.
    #[error("an embedded migration is malformed")]
    Embedded(#[source] refinery::Error),
}

/// The version of the newest migration in this binary.
pub fn latest_version() -> i32 {
    i32::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

/// Opens a connection of its own, outside of any pool and without a statement deadline.
///
/// # Errors
/// The driver's, when no host accepts the connection.
pub async fn connect(conninfo: &ConnInfo) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = conninfo.config.connect(conninfo.tls.clone()).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a postgres connection ended");
        }
    });
    Ok(client)
}

/// Applies what is missing and returns how many migrations that was.
///
/// # Errors
/// When the database cannot be reached or a migration fails; nothing of a failed migration stays.
pub async fn run(client: &mut Client) -> Result<usize, MigrateError> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(MigrateError::Embedded)?;
    client
        .batch_execute(&format!(
            "set statement_timeout = 0; set lock_timeout = {}; select pg_advisory_lock({LOCK_KEY}); set lock_timeout = 0",
            LOCK_TIMEOUT.as_millis()
        ))
        .await
        .map_err(MigrateError::Connect)?;
    // A newer release may already have migrated this database: its migrations are not missing, only unknown here.
    let runner = Runner::new(&migrations).set_abort_missing(false);
    let report = runner.run_async(client).await.map_err(MigrateError::Run);
    client.batch_execute(&format!("select pg_advisory_unlock({LOCK_KEY})")).await.map_err(MigrateError::Connect)?;
    Ok(report?.applied_migrations().len())
}

/// Whether the database holds every migration of this binary; one query, nothing is written.
///
/// # Errors
/// When the database does not answer.
pub async fn is_current(pool: &Pool) -> Result<bool, super::error::StoreError> {
    let rows = pool.read(APPLIED_VERSION, &[]).await?;
    let applied = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
    Ok(applied.is_some_and(|version| version >= latest_version()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_the_folder_is_embedded_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is part of the repository")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let expected: Vec<String> = MIGRATIONS
            .iter()
            .enumerate()
            .map(|(index, (name, _))| {
                let title = name.split_once("__").expect("V<number>__<name>").1;
                assert!(name.starts_with(&format!("V{}__", index + 1)), "{name}");
                format!("{:04}_{title}.sql", index + 1)
            })
            .collect();
        assert_eq!(files, expected);
    }
}
