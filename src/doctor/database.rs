//! PostgreSQL: what it is, what it was told, and in what state the service's tables are.
//!
//! Whoever asks may read all of this: no superuser is needed, except where a sentence says so.

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::connection::{self, Fault};
use super::query::one;
use super::report::Report;
use super::settings::Settings;
use super::{backups, privileges, writes};
use crate::config::DatabaseConfig;
use crate::db::conninfo::ConnInfo;
use crate::db::told::told;
use crate::db::{migrate, roles};
use crate::resource::registry::Resources;
use crate::resource::schema::{Table, differences};

const AREA: &str = "database";

/// The oldest release of PostgreSQL that the service is tested with, and the newest.
const VERSIONS: (i32, i32) = (14, 18);
/// Transactions since the oldest row that was not frozen; PostgreSQL begins to freeze by itself at 200 million, and stops
/// 3 million before 2^31.
const XID_AGE_WRONG: i64 = 1_500_000_000;
/// Bytes of the log that a slot may hold back.
const SLOT_WARNING: i64 = 1 << 30;
/// The service refuses nothing by its clock; tokens are judged by it, and AUTH_LEEWAY is 30 s unless it is set.
const CLOCK_WARNING_SECONDS: f64 = 5.0;
/// Connections of ours besides the pool: the probe's, and two that listen for changes.
const BESIDES_THE_POOL: i64 = 3;

/// Settings that lose what was acknowledged in a crash when they are off.
const DURABILITY: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// Looks at the database that requests use, as the role of requests; sessions and archives as whoever migrates, where that is
/// another role, because PostgreSQL hides some of them.
pub async fn look(report: &mut Report, config: &DatabaseConfig, conninfo: &ConnInfo, resources: Resources) {
    let settings = Settings::of_requests(config);
    let client = match migrate::connect(conninfo).await {
        Ok(client) => client,
        Err(error) => {
            for Fault { what, mend } in connection::faults(&error, conninfo, &settings).await {
                report.wrong(AREA, what, mend);
            }
            if connection::is_of_other_kind(&error) {
                say_of_which_kind(report, conninfo, &settings).await;
            }
            return;
        }
    };
    if let Err(error) = look_at(report, config, conninfo, resources, &client).await {
        report.wrong(AREA, format!("it cannot be looked at to the end: {}", told(&error)), "see PostgreSQL's log");
    }
}

/// A server answered, but is not of the kind that target_session_attrs asks for: what it is then.
async fn say_of_which_kind(report: &mut Report, conninfo: &ConnInfo, settings: &Settings) {
    let mut any = conninfo.clone();
    any.config.target_session_attrs(TargetSessionAttrs::Any);
    for index in 0..any.hosts() {
        if let Ok(client) = migrate::connect_to(&any, index).await
            && let Err(error) = writes::refused(report, &client, settings).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "a host cannot be asked of which kind it is");
        }
    }
}

async fn look_at(
    report: &mut Report,
    config: &DatabaseConfig,
    conninfo: &ConnInfo,
    resources: Resources,
    client: &Client,
) -> Result<(), Error> {
    server(report, client).await?;
    writes::refused(report, client, &Settings::of_requests(config)).await?;
    connections(report, client, config.pool_size).await?;
    if roles::is_superuser(client).await? {
        let what = "requests work as a superuser, who may drop and read everything";
        report.warning(AREA, what, "docs/operations.md, \"Roles\": MIGRATE_USER, and another role for requests");
    } else {
        report.fine(AREA, "requests work as a role that is no superuser");
    }
    let migrator = migrator(report, config, conninfo).await;
    let migrator = migrator.as_ref();
    let finds = privileges::finds_tables(report, client).await;
    if passed(report, "the schema", finds)? == Some(true) {
        let applied = schema(report, client, resources).await;
        let applied = passed(report, "the schema", applied)?;
        if applied.is_some_and(|applied| applied < migrate::latest_version()) {
            privileges::of_migrator(report, migrator.unwrap_or(client), resources).await?;
        }
        if applied != Some(0) {
            privileges::of_requests(report, client, resources).await?;
            let looked = backups::look(report, client).await;
            passed(report, "maintenance_runs", looked)?;
        }
    }
    if let Some(migrator) = migrator {
        writes::refused(report, migrator, &Settings::of_migrator(config)).await?;
    }
    writes::waited_for(report, migrator.unwrap_or(client)).await?;
    state(report, migrator.unwrap_or(client)).await
}

/// Goes on behind what PostgreSQL refuses, which says nothing of the rest, and not behind the end of the session.
fn passed<T>(report: &mut Report, what: &str, looked: Result<T, Error>) -> Result<Option<T>, Error> {
    let error = match looked {
        Ok(found) => return Ok(Some(found)),
        Err(error) if error.code().is_none() || error.is_closed() => return Err(error),
        Err(error) => error,
    };
    let mend = if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        "grant what the sentence names to this role, or: pycrudapi migrate as the owner"
    } else {
        "see PostgreSQL's log"
    };
    report.wrong(AREA, format!("{what} cannot be looked at: {}", told(&error)), mend);
    Ok(None)
}

/// A session of whoever migrates, if that is another role.
async fn migrator(report: &mut Report, config: &DatabaseConfig, conninfo: &ConnInfo) -> Option<Client> {
    let conninfo = conninfo.as_migrator()?;
    match migrate::connect(&conninfo).await {
        Ok(client) => Some(client),
        Err(error) => {
            for Fault { what, mend } in connection::faults(&error, &conninfo, &Settings::of_migrator(config)).await {
                report.wrong(AREA, format!("who migrates: {what}"), mend);
            }
            None
        }
    }
}

/// What is true of PostgreSQL as a whole.
async fn server(report: &mut Report, client: &Client) -> Result<(), Error> {
    let version: String = one(client, "show server_version_num").await?;
    let major = version.parse::<i32>().unwrap_or_default() / 10_000;
    if major < VERSIONS.0 {
        report.wrong(
            AREA,
            format!("it is PostgreSQL {major}, older than {}", VERSIONS.0),
            "upgrade it: docs/upgrading.md",
        );
    } else if major > VERSIONS.1 {
        let mend = "tell the project how it went";
        report.warning(AREA, format!("it is PostgreSQL {major}; nothing beyond {} was tested", VERSIONS.1), mend);
    } else {
        report.fine(AREA, format!("it is PostgreSQL {major}"));
    }
    for setting in DURABILITY {
        if one::<String>(client, &format!("show {setting}")).await? == "off" {
            let mend = format!("alter system reset {setting}; select pg_reload_conf();");
            report.wrong(AREA, format!("{setting} = off: acknowledged changes are lost in a crash"), mend);
        }
    }
    if one::<String>(client, "show autovacuum").await? == "off" {
        let mend = "alter system reset autovacuum; select pg_reload_conf();";
        report.warning(AREA, "autovacuum = off: tables grow, and plans are made for what they were", mend);
    }
    // Half of the way there and back is at most what the look took.
    let ahead: f64 = one(
        client,
        &format!(
            "select extract(epoch from clock_timestamp())::float8 - {}",
            jiff::Timestamp::now().as_duration().as_secs_f64()
        ),
    )
    .await?;
    if ahead.abs() > CLOCK_WARNING_SECONDS {
        let what =
            format!("PostgreSQL's clock and this machine's differ by {:.0} s; tokens are judged by both", ahead.abs());
        report.warning("clock", what, "timedatectl set-ntp true, on both machines");
    } else {
        report.fine("clock", "PostgreSQL's and this machine's agree");
    }
    Ok(())
}

/// Whether there are as many connections as the settings want.
async fn connections(report: &mut Report, client: &Client, pool_size: u32) -> Result<(), Error> {
    let row = client
        .query_one(
            "select current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8, \
             (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid())",
            &[],
        )
        .await?;
    let (most, used): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let wanted = i64::from(pool_size) + BESIDES_THE_POOL;
    let mend = "lower POOL_SIZE, or raise max_connections (alter system, then a restart of PostgreSQL)";
    if wanted > most {
        report.wrong(AREA, format!("one server wants {wanted} connections and PostgreSQL allows {most}"), mend);
    } else if used * 10 > most * 9 {
        report.warning(AREA, format!("{used} of {most} connections are in use"), mend);
    } else {
        report.fine(AREA, format!("{used} of {most} connections are in use; one server takes {wanted} at most"));
    }
    Ok(())
}

/// Whether migrations have run and tables are as they are described; returns the version of the newest migration.
async fn schema(report: &mut Report, client: &Client, resources: Resources) -> Result<i32, Error> {
    let there: bool = one(client, migrate::HAS_VERSION).await?;
    let applied: i32 = if there { one(client, migrate::APPLIED_VERSION).await? } else { 0 };
    let latest = migrate::latest_version();
    if applied < latest {
        let what = format!("the schema is at version {applied}, and this release needs {latest}");
        report.wrong(AREA, what, "pycrudapi migrate");
    } else if applied > latest {
        let what = format!("the schema is at version {applied}, of a newer release than this one ({latest})");
        report.warning(AREA, what, "finish the rollout, or docs/upgrading.md on going back");
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
            report.fine(AREA, format!("the table of {} is as it is described", resource.name));
        }
        for difference in found {
            let what = format!("the table of {} differs from its description: {}", resource.name, difference.what);
            let mend = if difference.is_safe {
                "pycrudapi migrate".to_owned()
            } else {
                format!("{};", difference.sql.join("; "))
            };
            report.wrong(AREA, what, mend);
        }
    }
    Ok(applied)
}

/// Whether the tables are there that migrations have made: nothing makes them again.
async fn own_tables(report: &mut Report, client: &Client, resources: Resources, applied: i32) -> Result<(), Error> {
    let is_described = |table: &str| resources.iter().any(|resource| resource.table == table);
    for table in migrate::tables_made_until(applied).filter(|table| !is_described(table)) {
        let is_there: bool = client.query_one("select to_regclass($1) is not null", &[&table]).await?.try_get(0)?;
        if !is_there {
            let what = format!("the table {table} is missing, although migrations have made it");
            report.wrong(AREA, what, "somebody has dropped it: bring it back from a backup, pycrudapi restore");
        }
    }
    Ok(())
}

/// One thing that PostgreSQL's own tables tell: the query's first column names it, the second is a number.
struct Look {
    sql: &'static str,
    judge: fn(&mut Report, &str, i64),
    fine: &'static str,
}

const LOOKS: &[Look] = &[
    Look {
        sql: "select i.indexrelid::regclass::text, pg_relation_size(i.indexrelid) from pg_index i \
              join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace \
              where not i.indisvalid and n.nspname = current_schema()",
        judge: |report, index, _| {
            let what = format!("the index {index} is invalid: making it was interrupted, and nothing uses it");
            report.warning(AREA, what, format!("reindex index concurrently {index};"));
        },
        fine: "no index is invalid",
    },
    Look {
        sql: "select relid::regclass::text, n_dead_tup from pg_stat_user_tables \
              where schemaname = current_schema() and n_dead_tup > 10000 and n_dead_tup > n_live_tup / 2",
        judge: |report, table, dead| {
            report.warning(AREA, format!("{table} has {dead} dead rows"), format!("vacuum (analyze) {table};"));
        },
        fine: "no table is bloated with dead rows",
    },
    Look {
        sql: "select relid::regclass::text, n_mod_since_analyze from pg_stat_user_tables \
              where schemaname = current_schema() and n_mod_since_analyze > 10000 and n_mod_since_analyze > n_live_tup / 2",
        judge: |report, table, changes| {
            let what = format!("{table} has changed {changes} times since its statistics were made");
            report.warning(AREA, what, format!("analyze {table};"));
        },
        fine: "the statistics of the tables are current",
    },
    Look {
        // `backup --follow` into a bucket moves its slot without reading from it.
        sql: "select slot_name::text, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
              else pg_current_wal_lsn() end, restart_lsn)::int8 from pg_replication_slots where not active \
              and (slot_name <> 'pycrudapi_backup' or not exists (select from pg_stat_replication \
              where application_name like 'pycrudapi follow %'))",
        judge: |report, slot, bytes| {
            let what = format!("nobody reads the replication slot {slot}, which keeps {} MiB of the log", bytes >> 20);
            let mend = format!("start its reader, or: select pg_drop_replication_slot('{slot}');");
            if bytes > SLOT_WARNING { report.wrong(AREA, what, mend) } else { report.warning(AREA, what, mend) }
        },
        fine: "no replication slot is left behind",
    },
    Look {
        sql: "select datname::text, age(datfrozenxid)::int8 from pg_database where datname = current_database() \
              and age(datfrozenxid) > 500000000",
        judge: |report, database, age| {
            let what =
                format!("the oldest row of {database} is {age} transactions old; PostgreSQL stops at 2,144,000,000");
            let mend = "vacuum (freeze); and look for old transactions and prepared ones that hold it back";
            if age > XID_AGE_WRONG { report.wrong(AREA, what, mend) } else { report.warning(AREA, what, mend) }
        },
        fine: "no row is near the end of transaction numbers",
    },
    Look {
        sql: "select pid::text, extract(epoch from now() - xact_start)::int8 from pg_stat_activity \
              where state like 'idle in transaction%' and now() - xact_start > interval '5 minutes'",
        judge: |report, pid, seconds| {
            let what =
                format!("session {pid} has held a transaction for {seconds} s and does nothing: vacuum waits for it");
            report.warning(AREA, what, format!("select pg_terminate_backend({pid});"));
        },
        fine: "nobody holds a transaction and does nothing",
    },
    Look {
        sql: "select last_failed_wal, extract(epoch from now() - last_failed_time)::int8 from pg_stat_archiver \
              where last_failed_time > coalesce(last_archived_time, '-infinity')",
        judge: |report, file, seconds| {
            let what =
                format!("archiving the log has failed since {file}, {seconds} s ago: no backup reaches beyond it");
            report.wrong(AREA, what, "see PostgreSQL's log for what archive_command says");
        },
        fine: "archiving the log does not fail",
    },
];

async fn state(report: &mut Report, client: &Client) -> Result<(), Error> {
    for Look { sql, judge, fine } in LOOKS {
        let rows = client.query(*sql, &[]).await;
        let Some(rows) = passed(report, "a view of PostgreSQL", rows)? else { continue };
        for row in &rows {
            judge(report, row.try_get(0)?, row.try_get(1)?);
        }
        if rows.is_empty() {
            report.fine(AREA, *fine);
        }
    }
    Ok(())
}
