//! Schema migrations, embedded in the binary and run by refinery under an advisory lock.
//!
//! Migrations are append-only. Any number of processes may run them at once: one does the work, the others wait and then find
//! nothing to do.

use std::time::Duration;

use futures_util::future::BoxFuture;
use refinery::{Migration, Runner};
use thiserror::Error;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::{ConnectError, Connection};
use super::conninfo::ConnInfo;
use super::operation::DbOperation;
use super::pool::Pool;
use super::roles;

/// Names and texts in the order in which they are applied; the number is the version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__passengers", include_str!("../../migrations/0001_passengers.sql")),
    ("V2__air_quality", include_str!("../../migrations/0002_air_quality.sql")),
    ("V3__steps", include_str!("../../migrations/0003_steps.sql")),
    ("V4__versions", include_str!("../../migrations/0004_versions.sql")),
    ("V5__idempotency_keys", include_str!("../../migrations/0005_idempotency_keys.sql")),
    ("V6__passenger_lists", include_str!("../../migrations/0006_passenger_lists.sql")),
    ("V7__analyze", include_str!("../../migrations/0007_analyze.sql")),
    ("V8__key_index_is_newest", include_str!("../../migrations/0008_key_index_is_newest.sql")),
    ("V9__analyze_described_tables", include_str!("../../migrations/0009_analyze_described_tables.sql")),
    ("V10__station_names", include_str!("../../migrations/0010_station_names.sql")),
    ("V11__api_tokens", include_str!("../../migrations/0011_api_tokens.sql")),
    ("V12__maintenance_runs", include_str!("../../migrations/0012_maintenance_runs.sql")),
];

/// Key of the advisory lock; any constant works as long as it never changes ("pycr" in ASCII).
const LOCK_KEY: i64 = 0x7079_6372;

/// Longest wait for another process that is running migrations.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time for opening a connection, so that a server that accepts connections but sends nothing is retried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

static CHECK: DbOperation = DbOperation::new("check", "migrations");

/// Run first: querying a missing table would write an error to PostgreSQL's log at a normal first start.
pub const HAS_VERSION: &str = "select to_regclass('refinery_schema_history') is not null";
/// Query for the database's current schema version.
pub const APPLIED_VERSION: &str = "select coalesce(max(version), 0) from refinery_schema_history";

/// Why the schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// No connection, or it was lost.
    #[error("cannot connect to the database")]
    Connect(#[source] tokio_postgres::Error),
    /// No host accepts a connection, or none matches `target_session_attrs`.
    #[error("cannot connect to the database")]
    Unreachable(#[source] ConnectError),
    /// The connection is accepted, but the server sends nothing.
    #[error("postgres does not answer within {} s", CONNECT_DEADLINE.as_secs())]
    Silent,
    /// The roles cannot be created or granted the privileges they require.
    #[error("cannot create the role for requests; create it manually, or migrate as an administrator (MIGRATE_USER)")]
    Roles(#[source] tokio_postgres::Error),
    /// PostgreSQL rejects the role for requests.
    #[error(
        "postgres rejects the role for requests: it exists with a different password, which migrations never change; \
             set the password manually, or configure another role (POSTGRES_USER, DATABASE_URL)"
    )]
    Requests(#[source] tokio_postgres::Error),
    /// A migration failed; its transaction was rolled back.
    #[error("a migration failed")]
    Run(#[source] refinery::Error),
    /// A table differs from its description in a way that requires a manual change.
    #[error("a table cannot be brought up to date")]
    Tables(#[source] TablesError),
    /// An embedded migration's name is malformed.
    #[error("an embedded migration is malformed")]
    Embedded(#[source] refinery::Error),
}

impl MigrateError {
    /// Whether no server is reachable or none responds.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Silent | Self::Unreachable(_))
    }
}

/// Tables that are defined by descriptions rather than migrations.
pub trait Tables: Send + Sync {
    /// The tables, sequences and functions.
    fn objects(&self) -> Vec<String>;

    /// Brings the tables up to date and returns the number of changes.
    fn update<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<usize, TablesError>>;

    /// Descriptions of what is missing.
    fn missing<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Vec<String>, tokio_postgres::Error>>;
}

/// Why such a table cannot be used.
pub type TablesError = Box<dyn std::error::Error + Send + Sync>;

/// The version of the newest migration in this binary.
pub fn latest_version() -> i32 {
    i32::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

/// Opens a separate connection, outside of any pool and without a statement deadline.
///
/// # Errors
/// [`MigrateError::Unreachable`] when no host accepts the connection, [`MigrateError::Silent`] when none answers in time,
/// [`MigrateError::Connect`] when PostgreSQL refuses it.
pub async fn connect(conninfo: &ConnInfo) -> Result<Client, MigrateError> {
    opened(conninfo.connect()).await
}

/// As [`connect`], for one of several hosts, by its index in the settings.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to(conninfo: &ConnInfo, index: usize) -> Result<Client, MigrateError> {
    opened(conninfo.connect_to(index)).await
}

async fn opened(connecting: impl Future<Output = Result<Connection, ConnectError>>) -> Result<Client, MigrateError> {
    match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
        Ok(Ok(connection)) => Ok(connection.client),
        Ok(Err(ConnectError::Postgres(error))) => Err(MigrateError::Connect(error)),
        Ok(Err(ConnectError::Silent)) | Err(_) => Err(MigrateError::Silent),
        Ok(Err(error)) => Err(MigrateError::Unreachable(error)),
    }
}

/// Applies the missing migrations and returns their number. If `requests` is given, this session belongs to a different role,
/// which creates the role for requests and grants it access to the tables.
///
/// # Errors
/// If the database cannot be reached or a migration fails; a failed migration is rolled back completely.
pub async fn run(client: &mut Client, tables: &dyn Tables, requests: Option<&ConnInfo>) -> Result<usize, MigrateError> {
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
    let outcome = run_locked(client, &migrations, tables, requests).await;
    client
        .batch_execute(&format!("reset role; select pg_advisory_unlock({LOCK_KEY})"))
        .await
        .map_err(MigrateError::Connect)?;
    outcome
}

async fn run_locked(
    client: &mut Client,
    migrations: &[Migration],
    tables: &dyn Tables,
    requests: Option<&ConnInfo>,
) -> Result<usize, MigrateError> {
    if let Some(requests) = requests {
        roles::create_request_role(client, requests).await.map_err(MigrateError::Roles)?;
        roles::become_owner(client, &objects(tables)).await.map_err(MigrateError::Roles)?;
    }
    // A newer release may already have migrated this database: this binary does not have those migrations.
    let runner = Runner::new(migrations).set_abort_missing(false);
    let report = runner.run_async(client).await.map_err(MigrateError::Run)?;
    let changes = tables.update(client).await.map_err(MigrateError::Tables)?;
    if requests.is_some() {
        roles::grant(client).await.map_err(MigrateError::Roles)?;
    }
    Ok(report.applied_migrations().len() + changes)
}

/// The tables, sequences and functions that the migrations and descriptions create, separated by commas.
pub fn objects(tables: &dyn Tables) -> String {
    let made = |line: &'static str| {
        let rest = ["create table ", "create sequence ", "create function ", "create or replace function "]
            .iter()
            .find_map(|start| line.trim_start().strip_prefix(start))?;
        rest.split([' ', '(']).next()
    };
    // Some statements are inside a `do` block.
    let lines = MIGRATIONS.iter().flat_map(|(_, sql)| sql.lines()).map(str::trim_start);
    let mut objects: Vec<String> = lines.filter_map(made).map(str::to_owned).collect();
    objects.push("refinery_schema_history".to_owned());
    objects.extend(tables.objects());
    objects.join(",")
}

/// The tables that the migrations up to a version create, except those defined by a description.
pub fn tables_made_until(version: i32) -> impl Iterator<Item = &'static str> {
    let count = usize::try_from(version).unwrap_or_default();
    let made = |line: &'static str| line.trim_start().strip_prefix("create table ")?.split([' ', '(']).next();
    MIGRATIONS.iter().take(count).flat_map(|(_, sql)| sql.lines()).filter_map(made)
}

/// Brings the database up to date as the migrating role, and returns the number of migrations applied and a connection as the
/// role for requests. `connected` is called once PostgreSQL has responded.
///
/// # Errors
/// As [`run`] and [`connect`].
pub async fn prepare(
    conninfo: &ConnInfo,
    tables: &dyn Tables,
    connected: impl Fn(),
) -> Result<(usize, Client), MigrateError> {
    let Some(migrator) = conninfo.as_migrator() else {
        let mut client = connect(conninfo).await?;
        connected();
        // A role that cannot migrate can use a database that another role has migrated.
        let current = is_current_for(&client, tables).await.map_err(MigrateError::Connect)?;
        let applied = if current { 0 } else { run(&mut client, tables, None).await? };
        return Ok((applied, client));
    };
    let mut client = connect(&migrator).await?;
    connected();
    let applied = run(&mut client, tables, Some(conninfo)).await?;
    let client = connect(conninfo).await.map_err(|error| match error {
        MigrateError::Connect(error) if is_refusal(&error) => MigrateError::Requests(error),
        error => error,
    })?;
    Ok((applied, client))
}

/// Whether PostgreSQL responds and rejects the login permanently.
pub fn is_refusal(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(
            &SqlState::INVALID_PASSWORD
                | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                | &SqlState::INVALID_CATALOG_NAME
        )
    )
}

/// Whether the database has every migration of this binary, or of a newer one, and every table matches its description;
/// differences are logged.
///
/// # Errors
/// If the database does not respond.
pub async fn is_current_for(client: &Client, tables: &dyn Tables) -> Result<bool, tokio_postgres::Error> {
    let is_begun: bool = client.query_one(HAS_VERSION, &[]).await?.try_get(0)?;
    if !is_begun || !is_latest(client.query_one(APPLIED_VERSION, &[]).await?.try_get(0)?) {
        return Ok(false);
    }
    let missing = tables.missing(client).await?;
    for difference in &missing {
        tracing::warn!(difference, "a table differs from its description");
    }
    Ok(missing.is_empty())
}

/// The version of the newest migration that the database has.
///
/// # Errors
/// If the database does not respond, or has none.
pub async fn applied_version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    client.query_one(APPLIED_VERSION, &[]).await?.try_get(0)
}

/// A newer release may already have migrated the database during a rollout.
fn is_latest(version: i32) -> bool {
    version >= latest_version()
}

/// Whether the database has every migration of this binary; writes nothing.
///
/// # Errors
/// If the database does not respond.
pub async fn is_current(pool: &Pool) -> Result<bool, super::error::StoreError> {
    let begun = pool.read(&CHECK, HAS_VERSION, &[]).await?;
    if !begun.first().is_some_and(|row| row.get(0)) {
        return Ok(false);
    }
    let rows = pool.read(&CHECK, APPLIED_VERSION, &[]).await?;
    let applied = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
    Ok(applied.is_some_and(is_latest))
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
