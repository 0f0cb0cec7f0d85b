//! Counts and hashes of every table at one instant whose position in WAL is known.
//!
//! Writers are locked out of all tables for the moment in which a snapshot is taken: the snapshot includes every transaction
//! committed by then, and WAL before the recorded position has no other. The wait for the locks is short and repeated, so that
//! a long import delays the backup, and the backup delays no other session.

use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::record::{Columns, State, Table};

/// The tables of the service: all but those of extensions and the list of migrations, which a restore writes itself.
const TABLES: &str = "
    select c.relname::text,
        string_agg(quote_ident(a.attname), ', ' order by a.attname) filter (where a.attgenerated = '')
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
        and c.relname <> 'refinery_schema_history'
        and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    group by c.relname order by c.relname";

/// Makes values as text independent of the session's defaults.
pub const FORMATS: &str = "set statement_timeout = 0; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
    set timezone = 'UTC'; set extra_float_digits = 1; set bytea_output = 'hex'; set client_encoding = 'UTF8'";

/// Longest time that a writer waits behind the lock request. It is below PostgreSQL's `deadlock_timeout`, so that the request
/// never causes a deadlock error in another session.
const LOCK_TIMEOUT_MS: u32 = 100;
/// Pause between two attempts, and the number of attempts: a long import takes minutes.
const PAUSE: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 600;

/// The tables of the service with their columns.
///
/// # Errors
/// When the connection is lost.
pub async fn tables(client: &Client) -> Result<Vec<Columns>, tokio_postgres::Error> {
    let columns = |row: &Row| Ok(Columns { table: row.try_get(0)?, names: row.try_get(1)? });
    client.query(TABLES, &[]).await?.iter().map(columns).collect()
}

/// A quoted SQL identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Begins a transaction with a snapshot of one instant; returns that instant and its position in WAL.
///
/// # Errors
/// When the tables cannot be locked.
pub async fn begin_snapshot(locker: &Client, reader: &Client) -> anyhow::Result<State> {
    let tables = tables(locker).await.context("cannot list the tables")?;
    let names = tables.iter().map(|columns| quoted(&columns.table)).collect::<Vec<_>>().join(", ");
    let lock = format!("set lock_timeout = {LOCK_TIMEOUT_MS}; begin; lock table {names} in share mode");
    let mut attempt = 0;
    while let Err(error) = locker.batch_execute(&lock).await {
        locker.batch_execute("rollback").await.context("the connection to postgres was lost")?;
        attempt += 1;
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(error).context("cannot lock the tables; make backups as their owner (MIGRATE_USER)");
        }
        if attempt == ATTEMPTS {
            bail!("a transaction keeps the tables locked; try again when it has ended");
        }
        tokio::time::sleep(PAUSE).await; // polling: nothing announces the end of another session's transaction
    }
    let begin = format!("{FORMATS}; begin isolation level repeatable read read only");
    reader.batch_execute(&begin).await.context("the connection to postgres was lost")?;
    // The first statement takes the snapshot.
    let position = "select pg_current_wal_insert_lsn()::text, clock_timestamp()";
    let row = reader.query_one(position, &[]).await.context("cannot read the position in WAL")?;
    locker.batch_execute("commit").await.context("the connection to postgres was lost")?;
    let at: Timestamp = row.try_get(1)?;
    Ok(State { at: at.to_string(), lsn: row.try_get(0)?, tables: Vec::new() })
}

/// Counts and hashes tables as this session sees them.
///
/// # Errors
/// When the connection is lost, or one of them is missing.
pub async fn hashes(client: &Client, tables: &[Columns]) -> anyhow::Result<Vec<Table>> {
    let mut hashes = Vec::new();
    for Columns { table, names } in tables {
        // A sum does not depend on the order of rows; 16 digits of SHA-256 are a 64-bit number.
        let hash = format!(
            "select count(*), coalesce(sum(('x' || substr(encode(sha256(convert_to(row({names})::text, 'UTF8')), 'hex'), 1, 16))\
             ::bit(64)::bigint::numeric), 0)::text from {}",
            quoted(table)
        );
        let row = client.query_one(&hash, &[]).await.with_context(|| format!("cannot read {table}"))?;
        hashes.push(Table {
            name: table.clone(),
            columns: names.clone(),
            rows: row.try_get(0)?,
            hash: row.try_get(1)?,
        });
    }
    Ok(hashes)
}
