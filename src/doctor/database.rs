//! PostgreSQL: its version, its settings, and the state of the service's tables.
//!
//! All checks work with an ordinary role: no superuser is required, except where a finding says so.

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, Error};

use super::connection::{self, Fault};
use super::query::one;
use super::report::Report;
use super::settings::Settings;
use super::{backup_runs, privileges, views, writes};
use crate::config::DatabaseConfig;
use crate::db::conninfo::ConnInfo;
use crate::db::error_chain::error_chain;
use crate::db::{migrate, roles};
use crate::resource::definition::Resource;
use crate::resource::registry::Resources;
use crate::resource::schema::{Table, differences};

const AREA: &str = "database";

/// The oldest and the newest release of PostgreSQL with which the service is tested.
const VERSIONS: (i32, i32) = (14, 18);
/// The clock is used to validate tokens, and AUTH_LEEWAY is 30 s by default.
const CLOCK_WARNING_SECONDS: f64 = 5.0;
/// Connections outside the pool: one of the readiness probe, and two that listen for notifications.
const OUTSIDE_THE_POOL: i64 = 3;

/// So that a lock or a slow disk delays only one check.
const DEADLINES: &str = "set lock_timeout = '2s'; set statement_timeout = '10s'";

/// Settings that, when off, lose acknowledged changes in a crash.
const DURABILITY: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// Checks the database with the role for requests; sessions and archiving with the migrating role, if that is a different one,
/// because PostgreSQL hides some of them.
pub async fn check(report: &mut Report, config: &DatabaseConfig, conninfo: &ConnInfo, resources: Resources) {
    let settings = Settings::of_requests(config);
    let client = match migrate::connect(conninfo).await {
        Ok(client) => client,
        Err(error) => {
            for Fault { what, remedy } in connection::faults(&error, conninfo, &settings).await {
                report.wrong(AREA, what, remedy);
            }
            if connection::is_of_wrong_kind(&error) {
                report_kind(report, conninfo, &settings).await;
            }
            return;
        }
    };
    if let Err(error) = check_with(report, config, conninfo, resources, &client).await {
        report.wrong(AREA, format!("the check was aborted: {}", error_chain(&error)), "see PostgreSQL's log");
    }
}

/// Reports what kind of server responds, if it does not match target_session_attrs.
async fn report_kind(report: &mut Report, conninfo: &ConnInfo, settings: &Settings) {
    let mut any = conninfo.clone();
    any.config.target_session_attrs(TargetSessionAttrs::Any);
    for index in 0..any.hosts() {
        if let Ok(client) = migrate::connect_to(&any, index).await
            && let Err(error) = writes::rejected(report, &client, settings).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot determine the kind of a host");
        }
    }
}

async fn check_with(
    report: &mut Report,
    config: &DatabaseConfig,
    conninfo: &ConnInfo,
    resources: Resources,
    client: &Client,
) -> Result<(), Error> {
    server(report, client).await?;
    writes::rejected(report, client, &Settings::of_requests(config)).await?;
    connections(report, client, config.pool_size).await?;
    let migrator = migrator(report, config, conninfo).await;
    let migrator = migrator.as_ref();
    // Before the tables, because reading them may wait for the same lock.
    client.batch_execute(DEADLINES).await?;
    if let Some(migrator) = migrator {
        migrator.batch_execute(DEADLINES).await?;
    }
    views::check(report, migrator.unwrap_or(client), views::LOCKS).await?;
    if roles::is_superuser(client).await? {
        let what = "the role for requests is a superuser, which can read and drop everything";
        report.warning(AREA, what, "docs/operations.md, \"Roles\": MIGRATE_USER, and another role for requests");
    } else {
        report.fine(AREA, "the role for requests is not a superuser");
    }
    let visible = privileges::finds_tables(report, client).await;
    if views::passed(report, "the schema", visible)? == Some(true) {
        let applied = schema(report, client, resources).await;
        let applied = views::passed(report, "the schema", applied)?;
        if applied.is_some_and(|applied| applied < migrate::latest_version()) {
            privileges::of_migrator(report, migrator.unwrap_or(client), resources).await?;
        }
        if applied != Some(0) {
            privileges::of_requests(report, client, resources).await?;
            let checked = backup_runs::check(report, client).await;
            views::passed(report, "maintenance_runs", checked)?;
        }
    }
    if let Some(migrator) = migrator {
        writes::rejected(report, migrator, &Settings::of_migrator(config)).await?;
    }
    writes::synchronous(report, migrator.unwrap_or(client)).await?;
    views::check(report, migrator.unwrap_or(client), views::STATE).await
}

/// A session of the migrating role, if that is a different role.
async fn migrator(report: &mut Report, config: &DatabaseConfig, conninfo: &ConnInfo) -> Option<Client> {
    let conninfo = conninfo.as_migrator()?;
    match migrate::connect(&conninfo).await {
        Ok(client) => Some(client),
        Err(error) => {
            for Fault { what, remedy } in connection::faults(&error, &conninfo, &Settings::of_migrator(config)).await {
                report.wrong(AREA, format!("migrating role: {what}"), remedy);
            }
            None
        }
    }
}

/// Checks the server as a whole.
async fn server(report: &mut Report, client: &Client) -> Result<(), Error> {
    let version: String = one(client, "show server_version_num").await?;
    let major = version.parse::<i32>().unwrap_or_default() / 10_000;
    if major < VERSIONS.0 {
        report.wrong(AREA, format!("PostgreSQL {major} is older than {}", VERSIONS.0), "upgrade it: docs/upgrading.md");
    } else if major > VERSIONS.1 {
        let remedy = "report to the project whether it works";
        report.warning(
            AREA,
            format!("PostgreSQL {major} is not tested; the newest tested release is {}", VERSIONS.1),
            remedy,
        );
    } else {
        report.fine(AREA, format!("PostgreSQL {major}"));
    }
    for setting in DURABILITY {
        if one::<String>(client, &format!("show {setting}")).await? == "off" {
            let remedy = format!("alter system reset {setting}; select pg_reload_conf();");
            report.wrong(AREA, format!("{setting} = off: a crash loses acknowledged changes"), remedy);
        }
    }
    if one::<String>(client, "show autovacuum").await? == "off" {
        let remedy = "alter system reset autovacuum; select pg_reload_conf();";
        report.warning(AREA, "autovacuum = off: tables grow, and statistics become outdated", remedy);
    }
    // The difference includes the query's round trip.
    let ahead: f64 = one(
        client,
        &format!(
            "select extract(epoch from clock_timestamp())::float8 - {}",
            jiff::Timestamp::now().as_duration().as_secs_f64()
        ),
    )
    .await?;
    if ahead.abs() > CLOCK_WARNING_SECONDS {
        let what = format!(
            "PostgreSQL's clock and this machine's differ by {:.0} s; tokens are validated with both",
            ahead.abs()
        );
        report.warning("clock", what, "timedatectl set-ntp true, on both machines");
    } else {
        report.fine("clock", "PostgreSQL's clock and this machine's agree");
    }
    Ok(())
}

/// Checks whether PostgreSQL allows as many connections as the settings require.
async fn connections(report: &mut Report, client: &Client, pool_size: u32) -> Result<(), Error> {
    let row = client
        .query_one(
            "select current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8, \
             (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid())",
            &[],
        )
        .await?;
    let (most, used): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let required = i64::from(pool_size) + OUTSIDE_THE_POOL;
    let remedy = "lower POOL_SIZE, or raise max_connections (alter system, then a restart of PostgreSQL)";
    if required > most {
        report.wrong(AREA, format!("one server requires {required} connections, but PostgreSQL allows {most}"), remedy);
    } else if used * 10 > most * 9 {
        report.warning(AREA, format!("{used} of {most} connections are in use"), remedy);
    } else {
        report.fine(AREA, format!("{used} of {most} connections are in use; one server uses at most {required}"));
    }
    Ok(())
}

/// Checks whether migrations have run and tables match their descriptions; returns the version of the newest migration.
async fn schema(report: &mut Report, client: &Client, resources: Resources) -> Result<i32, Error> {
    let exists: bool = one(client, migrate::HAS_VERSION).await?;
    let applied: i32 = if exists { one(client, migrate::APPLIED_VERSION).await? } else { 0 };
    let latest = migrate::latest_version();
    if applied < latest {
        let what = format!("the schema is at version {applied}, but this release requires {latest}");
        report.wrong(AREA, what, "pycrudapi migrate");
    } else if applied > latest {
        let what = format!("the schema is at version {applied}, which is newer than this release's ({latest})");
        report.warning(AREA, what, "finish the rollout, or see docs/upgrading.md on downgrades");
    } else {
        report.fine(AREA, format!("the schema is at version {applied}"));
    }
    if applied == 0 {
        return Ok(applied);
    }
    own_tables(report, client, resources, applied).await?;
    for resource in resources {
        let table = Table::read(client, resource).await?;
        let found = differences(resource, table.as_ref());
        if found.is_empty() {
            report.fine(AREA, format!("the table of {} matches its description", resource.name));
        }
        for difference in found {
            let what = format!("the table of {} differs from its description: {}", resource.name, difference.what);
            let remedy = if table.is_none() && existed(client, resource, applied).await? {
                format!(
                    "it was dropped or renamed. Do not restart the service, which would create it empty: alter table \
                     OTHER_NAME rename to {}; or restore it from a backup, pycrudapi restore",
                    resource.table
                )
            } else if difference.is_safe {
                "restart the service; with MIGRATE=false: pycrudapi migrate".to_owned()
            } else {
                format!("{};", difference.sql.join("; "))
            };
            report.wrong(AREA, what, remedy);
        }
    }
    Ok(applied)
}

/// Whether a table that is missing existed before: a migration has created it, or its history is there.
async fn existed(client: &Client, resource: &Resource, applied: i32) -> Result<bool, Error> {
    let sql = "select to_regclass($1) is not null";
    let history: bool = client.query_one(sql, &[&format!("{}_history", resource.table)]).await?.try_get(0)?;
    Ok(history || migrate::tables_made_until(applied).any(|table| table == resource.table))
}

/// Checks whether the tables created by migrations exist: they are not created again.
async fn own_tables(report: &mut Report, client: &Client, resources: Resources, applied: i32) -> Result<(), Error> {
    let is_described = |table: &str| resources.iter().any(|resource| resource.table == table);
    for table in migrate::tables_made_until(applied).filter(|table| !is_described(table)) {
        let exists: bool = client.query_one("select to_regclass($1) is not null", &[&table]).await?.try_get(0)?;
        if !exists {
            let what = format!("the table {table} is missing, although a migration has created it");
            report.wrong(AREA, what, "it was dropped: restore it from a backup, pycrudapi restore");
        }
    }
    Ok(())
}
