//! PostgreSQL's system views: locks, maintenance that is due, and what prevents it.
//!
//! Each check is one query of names and numbers. A view that cannot be read is reported, and the other checks continue.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::query::{one, quoted};
use super::report::Report;
use crate::db::error_chain::error_chain;

const AREA: &str = "database";

/// Age of the oldest unfrozen row in transactions; PostgreSQL starts to freeze by itself at 200 million, and stops accepting
/// writes 3 million before 2^31.
const XID_AGE_WRONG: i64 = 1_500_000_000;
/// Bytes of WAL that a slot may retain.
const SLOT_WARNING: i64 = 1 << 30;

/// A query whose first column is a name and whose second a number.
pub struct Check {
    /// The first release of PostgreSQL that has the columns.
    since: i32,
    sql: &'static str,
    evaluate: fn(&mut Report, &str, i64),
    fine: &'static str,
}

/// Columns of a name with several parts are separated by this character.
const SEPARATOR: char = '\t';

/// Sessions that others wait for; the type of another role's session may be hidden. A prepared transaction that holds the lock
/// has pid 0 and is among those of [`STATE`].
pub const LOCKS: &[Check] = &[Check {
    since: 0,
    sql: "with waiting as (select unnest(pg_blocking_pids(pid)) as by, pid, query_start from pg_stat_activity \
          where wait_event_type = 'Lock' and now() - query_start > interval '5 seconds'), \
          holding as (select l.pid as by, a.xact_start as since from pg_locks l join pg_stat_activity a using (pid) \
          join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace \
          where l.granted and l.mode = 'AccessExclusiveLock' and l.pid <> pg_backend_pid() and \
          l.database = (select oid from pg_database where datname = current_database()) and \
          n.nspname = current_schema() and clock_timestamp() - a.xact_start > interval '5 seconds' \
          union all select by, query_start from waiting where by <> 0 and by not in (select pid from waiting)) \
          select by || E'\\t' || coalesce(nullif(application_name, ''), backend_type, 'of another role'), \
          extract(epoch from clock_timestamp() - min(since))::int8 from holding join pg_stat_activity on pid = by \
          group by by, application_name, backend_type",
    evaluate: |report, session, seconds| {
        let (pid, program) = session.split_once(SEPARATOR).unwrap_or((session, ""));
        let what = format!("session {pid} ({program}) has held a lock that requests need, for {seconds} s");
        report.wrong(AREA, what, format!("select pg_terminate_backend({pid});"));
    },
    fine: "no session holds a lock that others wait for",
}];

/// The state of the tables and of the cluster.
pub const STATE: &[Check] = &[
    Check {
        since: 0,
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
        since: 0,
        sql: "select relid::regclass::text, n_dead_tup from pg_stat_user_tables where schemaname = current_schema() and \
              n_dead_tup > 10000 and n_dead_tup > n_live_tup / 2",
        evaluate: |report, table, dead| {
            report.warning(AREA, format!("{table} has {dead} dead rows"), format!("vacuum (analyze) {table};"));
        },
        fine: "no table has many dead rows",
    },
    Check {
        since: 0,
        sql: "select relid::regclass::text, n_mod_since_analyze from pg_stat_user_tables \
              where schemaname = current_schema() and n_mod_since_analyze > 10000 and n_mod_since_analyze > n_live_tup / 2",
        evaluate: |report, table, changes| {
            let what = format!("{table} has changed {changes} times since its statistics were collected");
            report.warning(AREA, what, format!("analyze {table};"));
        },
        fine: "the statistics of all tables are current",
    },
    Check {
        since: 0,
        sql: "select slot_name::text, 0::int8 from pg_replication_slots where wal_status = 'lost'",
        evaluate: |report, slot, _| {
            let what = format!("the WAL that the replication slot {slot} needs is gone: its consumer cannot continue");
            let remedy = format!(
                "select pg_drop_replication_slot('{slot}'); then recreate its standby (pg_basebackup), or start pycrudapi \
                 backup --follow again"
            );
            report.wrong(AREA, what, remedy);
        },
        fine: "no replication slot has lost its WAL",
    },
    Check {
        since: 0,
        // `backup --follow` into a bucket moves its slot without reading from it. A slot that was never used retains nothing.
        sql: "select slot_name::text, coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
              else pg_current_wal_lsn() end, restart_lsn), 0)::int8 from pg_replication_slots where not active \
              and wal_status is distinct from 'lost' \
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
        since: 0,
        sql: "select slot_name::text, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() \
              else pg_current_wal_lsn() end, restart_lsn)::int8 from pg_replication_slots where active \
              and pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_lsn() end, \
              restart_lsn) > 2 ^ 30",
        evaluate: |report, slot, bytes| {
            let what = format!("the consumer of the replication slot {slot} is {} MiB of WAL behind", bytes >> 20);
            let remedy = "select application_name, state, sent_lsn, flush_lsn, replay_lsn from pg_stat_replication; then \
                          restart the consumer, or alter system set max_slot_wal_keep_size = '4GB'; select pg_reload_conf();";
            report.wrong(AREA, what, remedy);
        },
        fine: "no consumer of a replication slot is far behind",
    },
    Check {
        since: 0,
        sql: "select quote_ident(database) || E'\\t' || quote_literal(gid), extract(epoch from now() - prepared)::int8 \
              from pg_prepared_xacts where now() - prepared > interval '5 minutes'",
        evaluate: |report, name, seconds| {
            let (database, transaction) = name.split_once(SEPARATOR).unwrap_or(("", name));
            let what = format!(
                "the prepared transaction {transaction} of the database {database} has been waiting for {seconds} s: it \
                 holds its locks, and prevents vacuum from removing rows"
            );
            let remedy = format!("in {database}, if its coordinator is gone: rollback prepared {transaction};");
            report.wrong(AREA, what, remedy);
        },
        fine: "no prepared transaction has been left",
    },
    Check {
        since: 0,
        // The oldest database of the cluster decides. Vacuum freezes those without connections by itself.
        sql: "select datname::text, greatest(age(datfrozenxid), mxid_age(datminmxid))::int8 from pg_database \
              where datallowconn and greatest(age(datfrozenxid), mxid_age(datminmxid)) > 500000000 \
              order by datname <> current_database()",
        evaluate: |report, database, age| {
            let what = format!(
                "the oldest row of {database} is {age} transactions old; PostgreSQL stops accepting writes at 2,144,000,000"
            );
            let remedy = format!(
                "vacuum (freeze); in the database {}, as a superuser; and end old or prepared transactions that prevent it",
                quoted(database)
            );
            if age > XID_AGE_WRONG { report.wrong(AREA, what, remedy) } else { report.warning(AREA, what, remedy) }
        },
        fine: "transaction id wraparound is not near",
    },
    Check {
        since: 0,
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
        since: 0,
        sql: "select pid::text, extract(epoch from now() - xact_start)::int8 from pg_stat_activity \
              where backend_type = 'client backend' and state not like 'idle in transaction%' \
              and now() - xact_start > interval '1 hour'",
        evaluate: |report, pid, seconds| {
            let what = format!(
                "session {pid} has run a transaction for {seconds} s, which prevents vacuum from removing rows"
            );
            report.warning(AREA, what, format!("select pg_cancel_backend({pid});"));
        },
        fine: "no transaction has run for an hour",
    },
    Check {
        since: 0,
        sql: "select c.oid::regclass::text, 0::int8 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              cross join unnest(c.reloptions) as option where c.relkind = 'r' and n.nspname = current_schema() and \
              lower(option) in ('autovacuum_enabled=off', 'autovacuum_enabled=false', 'autovacuum_enabled=0', \
              'autovacuum_enabled=no')",
        evaluate: |report, table, _| {
            let what = format!("autovacuum is off for {table}: it grows, and its statistics become outdated");
            report.warning(AREA, what, format!("alter table {table} reset (autovacuum_enabled);"));
        },
        fine: "autovacuum is on for every table",
    },
    Check {
        since: 0,
        sql: "select c.oid::regclass || E'\\t' || s.min_value || E'\\t' || coalesce(d.refobjid::regclass::text, '') || \
              E'\\t' || coalesce(quote_ident(a.attname), ''), (s.max_value - s.last_value)::int8 \
              from pg_sequences s join pg_namespace n on n.nspname = s.schemaname \
              join pg_class c on c.relname = s.sequencename and c.relnamespace = n.oid \
              left join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and \
              d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and d.refobjsubid > 0 \
              left join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
              where s.schemaname = current_schema() and s.increment_by > 0 and not s.cycle \
              and s.last_value > s.max_value * 0.9",
        evaluate: |report, name, left| {
            let mut parts = name.split(SEPARATOR);
            let [sequence, first, table, column] = [(); 4].map(|()| parts.next().unwrap_or_default());
            let what = format!(
                "the sequence {sequence} ends after {left} more values, then every insert fails: it is too small, or was set \
                 by mistake"
            );
            let remedy = if table.is_empty() {
                format!("alter sequence {sequence} as bigint maxvalue 9223372036854775807;")
            } else {
                format!(
                    "make it and {table}.{column} bigint, or: select setval('{sequence}', (select coalesce(max({column}), \
                     {first}) from {table}));"
                )
            };
            report.wrong(AREA, what, remedy);
        },
        fine: "no sequence is near its end",
    },
    Check {
        since: 15,
        sql: "select quote_ident(datname) || E'\\t' || datcollversion || E'\\t' || \
              pg_database_collation_actual_version(oid), 0::int8 from pg_database where datname = current_database() \
              and datcollversion <> pg_database_collation_actual_version(oid)",
        evaluate: |report, name, _| {
            let mut parts = name.split(SEPARATOR);
            let [database, recorded, actual] = [(); 3].map(|()| parts.next().unwrap_or_default());
            let what = format!(
                "the text indexes of {database} were built with version {recorded} of its collation, but the system has \
                 {actual}: lists may lack rows"
            );
            let remedy = format!("reindex database {database}; alter database {database} refresh collation version;");
            report.wrong(AREA, what, remedy);
        },
        fine: "the version of the database's collation has not changed",
    },
    Check {
        since: 0,
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

/// Carries out checks in their order.
///
/// # Errors
/// If the connection is lost.
pub async fn check(report: &mut Report, client: &Client, checks: &[Check]) -> Result<(), Error> {
    let version: String = one(client, "show server_version_num").await?;
    let major = version.parse::<i32>().unwrap_or_default() / 10_000;
    for Check { sql, evaluate, fine, .. } in checks.iter().filter(|check| check.since <= major) {
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

/// Reports a query that PostgreSQL rejects and continues, because it does not affect the other checks; returns an error if the
/// session has ended.
///
/// # Errors
/// If the connection is lost.
pub fn passed<T>(report: &mut Report, what: &str, checked: Result<T, Error>) -> Result<Option<T>, Error> {
    let error = match checked {
        Ok(found) => return Ok(Some(found)),
        Err(error) if error.code().is_none() || error.is_closed() => return Err(error),
        Err(error) => error,
    };
    let remedy = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "grant this role the privilege in the message, or: pycrudapi migrate as the owner"
        }
        Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::QUERY_CANCELED) => {
            "end the session that holds the lock: select pid, query from pg_stat_activity where pid in (select pid from \
             pg_locks where mode = 'AccessExclusiveLock' and granted); select pg_terminate_backend(PID);"
        }
        _ => "see PostgreSQL's log",
    };
    report.wrong(AREA, format!("{what} cannot be checked: {}", error_chain(&error)), remedy);
    Ok(None)
}
