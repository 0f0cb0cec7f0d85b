//! PostgreSQL: its version, its settings, and the state of the service's tables.
//!
//! All checks work with an ordinary role: no superuser is required, except where a finding says so.

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::connection::{self, Fault};
use super::query::one;
use super::report::Report;
use super::settings::Settings;
use super::{backup_runs, privileges, writes};
use crate::config::DatabaseConfig;
use crate::db::conninfo::ConnInfo;
use crate::db::error_chain::error_chain;
use crate::db::{migrate, roles};
use crate::resource::registry::Resources;
use crate::resource::schema::{Table, differences};

const AREA: &str = "database";

/// The oldest and the newest release of PostgreSQL with which the service is tested.
const VERSIONS: (i32, i32) = (14, 18);
/// Age of the oldest unfrozen row in transactions; PostgreSQL starts to freeze by itself at 200 million, and stops accepting
/// writes 3 million before 2^31.
const XID_AGE_WRONG: i64 = 1_500_000_000;
/// Bytes of WAL that a slot may retain.
const SLOT_WARNING: i64 = 1 << 30;
/// The clock is used to validate tokens, and AUTH_LEEWAY is 30 s by default.
const CLOCK_WARNING_SECONDS: f64 = 5.0;
/// Connections outside the pool: one of the readiness probe, and two that listen for notifications.
const OUTSIDE_THE_POOL: i64 = 3;

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
    if roles::is_superuser(client).await? {
        let what = "the role for requests is a superuser, which can read and drop everything";
        report.warning(AREA, what, "docs/operations.md, \"Roles\": MIGRATE_USER, and another role for requests");
    } else {
        report.fine(AREA, "the role for requests is not a superuser");
    }
    let migrator = migrator(report, config, conninfo).await;
    let migrator = migrator.as_ref();
    let visible = privileges::finds_tables(report, client).await;
    if passed(report, "the schema", visible)? == Some(true) {
        let applied = schema(report, client, resources).await;
        let applied = passed(report, "the schema", applied)?;
        if applied.is_some_and(|applied| applied < migrate::latest_version()) {
            privileges::of_migrator(report, migrator.unwrap_or(client), resources).await?;
        }
        if applied != Some(0) {
            privileges::of_requests(report, client, resources).await?;
            let checked = backup_runs::check(report, client).await;
            passed(report, "maintenance_runs", checked)?;
        }
    }
    if let Some(migrator) = migrator {
        writes::rejected(report, migrator, &Settings::of_migrator(config)).await?;
    }
    writes::synchronous(report, migrator.unwrap_or(client)).await?;
    state(report, migrator.unwrap_or(client)).await
}

/// Reports a query that PostgreSQL rejects and continues, because it does not affect the other checks; returns an error if the
/// session has ended.
fn passed<T>(report: &mut Report, what: &str, checked: Result<T, Error>) -> Result<Option<T>, Error> {
    let error = match checked {
        Ok(found) => return Ok(Some(found)),
        Err(error) if error.code().is_none() || error.is_closed() => return Err(error),
        Err(error) => error,
    };
    let remedy = if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        "grant this role the privilege in the message, or: pycrudapi migrate as the owner"
    } else {
        "see PostgreSQL's log"
    };
    report.wrong(AREA, format!("{what} cannot be checked: {}", error_chain(&error)), remedy);
    Ok(None)
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
            let remedy = if difference.is_safe {
                "restart the service; with MIGRATE=false: pycrudapi migrate".to_owned()
            } else {
                format!("{};", difference.sql.join("; "))
            };
            report.wrong(AREA, what, remedy);
        }
    }
    Ok(applied)
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

/// A check of PostgreSQL's system views: the query's first column is a name, the second a number.
struct Check {
    sql: &'static str,
    evaluate: fn(&mut Report, &str, i64),
    fine: &'static str,
}

const CHECKS: &[Check] = &[
    Check {
        sql: "select i.indexrelid::regclass::text, pg_relation_size(i.indexrelid) from pg_index i \
              join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace \
              where not i.indisvalid and n.nspname = current_schema()",
        evaluate: |report, index, _| {
            let what = format!("the index {index} is invalid: its creation was interrupted, and it is not used");
            report.warning(AREA, what, format!("reindex index concurrently {index};"));
        },
        fine: "no index is invalid",
    },
    Check {
        sql: "select relid::regclass::text, n_dead_tup from pg_stat_user_tables where schemaname = current_schema() and \
              n_dead_tup > 10000 and n_dead_tup > n_live_tup / 2",
        evaluate: |report, table, dead| {
            report.warning(AREA, format!("{table} has {dead} dead rows"), format!("vacuum (analyze) {table};"));
        },
        fine: "no table has many dead rows",
    },
    Check {
        sql: "select relid::regclass::text, n_mod_since_analyze from pg_stat_user_tables \
              where schemaname = current_schema() and n_mod_since_analyze > 10000 and n_mod_since_analyze > n_live_tup / 2",
        evaluate: |report, table, changes| {
            let what = format!("{table} has changed {changes} times since its statistics were collected");
            report.warning(AREA, what, format!("analyze {table};"));
        },
        fine: "the statistics of all tables are current",
    },
    Check {
        // `backup --follow` into a bucket moves its slot without reading from it.
        sql: "select slot_name::text, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
              else pg_current_wal_lsn() end, restart_lsn)::int8 from pg_replication_slots where not active \
              and (slot_name <> 'pycrudapi_backup' or not exists (select from pg_stat_replication \
              where application_name like 'pycrudapi follow %'))",
        evaluate: |report, slot, bytes| {
            let what = format!("the replication slot {slot} is inactive and retains {} MiB of WAL", bytes >> 20);
            let remedy = format!("start its consumer, or: select pg_drop_replication_slot('{slot}');");
            if bytes > SLOT_WARNING { report.wrong(AREA, what, remedy) } else { report.warning(AREA, what, remedy) }
        },
        fine: "no replication slot is inactive",
    },
    Check {
        sql: "select datname::text, age(datfrozenxid)::int8 from pg_database where datname = current_database() \
              and age(datfrozenxid) > 500000000",
        evaluate: |report, database, age| {
            let what = format!(
                "the oldest row of {database} is {age} transactions old; PostgreSQL stops accepting writes at 2,144,000,000"
            );
            let remedy = "vacuum (freeze); and find old or prepared transactions that prevent it";
            if age > XID_AGE_WRONG { report.wrong(AREA, what, remedy) } else { report.warning(AREA, what, remedy) }
        },
        fine: "transaction id wraparound is not near",
    },
    Check {
        sql: "select pid::text, extract(epoch from now() - xact_start)::int8 from pg_stat_activity \
              where state like 'idle in transaction%' and now() - xact_start > interval '5 minutes'",
        evaluate: |report, pid, seconds| {
            let what = format!(
                "session {pid} has been idle in a transaction for {seconds} s, which prevents vacuum from removing rows"
            );
            report.warning(AREA, what, format!("select pg_terminate_backend({pid});"));
        },
        fine: "no session is idle in a transaction",
    },
    Check {
        sql: "select last_failed_wal, extract(epoch from now() - last_failed_time)::int8 from pg_stat_archiver \
              where last_failed_time > coalesce(last_archived_time, '-infinity')",
        evaluate: |report, file, seconds| {
            let what =
                format!("archiving WAL has failed since {file}, {seconds} s ago: backups cannot be restored beyond it");
            report.wrong(AREA, what, "see PostgreSQL's log for the output of archive_command");
        },
        fine: "archiving WAL does not fail",
    },
];

async fn state(report: &mut Report, client: &Client) -> Result<(), Error> {
    for Check { sql, evaluate, fine } in CHECKS {
        let rows = client.query(*sql, &[]).await;
        let Some(rows) = passed(report, "a system view", rows)? else { continue };
        for row in &rows {
            evaluate(report, row.try_get(0)?, row.try_get(1)?);
        }
        if rows.is_empty() {
            report.fine(AREA, *fine);
        }
    }
    Ok(())
}
