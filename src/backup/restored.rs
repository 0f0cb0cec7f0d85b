//! Moves the version sequences of a restored database past every version that clients may have seen.

use anyhow::Context;
use tokio_postgres::Client;

use super::state::quoted;

/// The sequences of the columns `version`.
const VERSIONS: &str = "
    select s.relname::text from pg_class s
    join pg_depend d on d.objid = s.oid and d.deptype = 'a' and d.classid = 'pg_class'::regclass
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where s.relkind = 'S' and a.attname = 'version' and s.relnamespace = current_schema()::regnamespace";

/// More versions than any service assigns between a backup and its restore.
const AHEAD: i64 = 1_000_000_000;

/// Moves the sequences of versions past those assigned after the backup: a client that has seen such a version would otherwise
/// take a different state of the row for the one it knows.
///
/// # Errors
/// When the connection is lost.
pub async fn move_versions(client: &Client) -> anyhow::Result<()> {
    let rows = client.query(VERSIONS, &[]).await.context("cannot list the sequences of versions")?;
    for row in rows {
        let name = quoted(row.try_get(0)?);
        let ahead = format!("select setval('{name}', nextval('{name}') + {AHEAD})");
        client.query_one(&ahead, &[]).await.with_context(|| format!("cannot move the sequence {name}"))?;
    }
    Ok(())
}
