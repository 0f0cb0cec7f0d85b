//! Logical backups: the rows of one database as `COPY` writes them, read in one snapshot. For servers that do not allow base
//! backups.
//!
//! Rows are loaded into tables that the migrations create, in one transaction that commits only after every table was compared.
//! Memory use is one chunk, whatever the size.

use std::fs::DirBuilder;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::pin::pin;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};

use super::disk::unwritable;
use super::folder::{Folder, Lock};
use super::record::{Backup, Columns, Kind, Sequence, State, Table};
use super::seal::{self, Key, SUFFIX};
use super::{restored, state};
use crate::db::conninfo::ConnInfo;
use crate::db::migrate::{self, Tables};

const SERVER: &str = "select current_setting('server_version'), current_setting('server_version_num')::int / 10000,
    current_database()::text, clock_timestamp()";
const SEQUENCES: &str = "select sequencename::text, last_value from pg_sequences
    where schemaname = current_schema() and last_value is not null";
/// A table that marks a database with an interrupted restore; its rows are the objects that existed before.
const MARKER: &str = "pycrudapi_restoring";
const MARK: &str = "create table pycrudapi_restoring as
    select oid as object from pg_class where relnamespace = current_schema()::regnamespace
    union all select oid from pg_proc where pronamespace = current_schema()::regnamespace
    union all select oid from pg_extension where extnamespace = current_schema()::regnamespace";
/// Drops the objects that did not exist before: tables, views, sequences, functions, extensions. Roles and their grants stay.
const UNDO: &str = "do $$
declare
    own_schema constant oid := current_schema()::regnamespace;
    change text;
begin
    -- All of them before the first is executed, which may take others along.
    foreach change in array array(
        with ours as (select object from pycrudapi_restoring),
        owned as (select objid, classid from pg_depend where deptype in ('a', 'e', 'i'))
        select format('drop %s if exists %I.%I cascade',
            case relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' else 'table' end,
            current_schema(), relname)
        from pg_class c where relnamespace = own_schema and relkind in ('r', 'p', 'v', 'm', 'S')
            and relname <> 'pycrudapi_restoring' and oid not in (select object from ours)
            and not exists (select from owned o where o.classid = 'pg_class'::regclass and o.objid = c.oid)
        union all
        select format('drop function if exists %s cascade', oid::regprocedure)
        from pg_proc p where pronamespace = own_schema and prokind = 'f' and oid not in (select object from ours)
            and not exists (select from owned o where o.classid = 'pg_proc'::regclass and o.objid = p.oid)
        union all
        select format('drop extension if exists %I cascade', extname)
        from pg_extension where extnamespace = own_schema and oid not in (select object from ours))
    loop
        execute change;
    end loop;
    drop table pycrudapi_restoring;
end
$$";
const CHUNK_BYTES: usize = 128 * 1024;

/// Makes a backup.
///
/// # Errors
/// With the cause and the remedy; nothing of the backup remains.
pub async fn make(server: &ConnInfo, folder: &Folder, key: Option<&Key>, lock: &Lock) -> anyhow::Result<Backup> {
    let client = migrate::connect(server).await.context("cannot connect to the database; check DATABASE_URL")?;
    let schema_version = migrate::applied_version(&client)
        .await
        .context("the database has no tables of this service; check DATABASE_URL")?;
    let begin = format!("{}; begin isolation level repeatable read read only", state::FORMATS);
    client.batch_execute(&begin).await.context("the connection to postgres was lost")?;
    let row = client.query_one(SERVER, &[]).await.context("the connection to postgres was lost")?;
    let partial = folder.begin(lock)?;
    let directory = partial.path().join("tables");
    DirBuilder::new().mode(0o700).create(&directory).map_err(|error| unwritable(&directory, error))?;
    let at: Timestamp = row.try_get(3)?;
    let mut backup = Backup {
        id: partial.id.clone(),
        kind: Kind::Logical,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        postgres: row.try_get(0)?,
        major: u32::try_from(row.try_get::<_, i32>(1)?).context("the server has no version")?,
        database: row.try_get(2)?,
        system: String::new(),
        schema_version,
        wal: None,
        state: State { at: at.to_string(), lsn: String::new(), tables: Vec::new() },
        sequences: Vec::new(),
        key: key.map(Key::mark),
        files: Vec::new(),
    };
    let tables = state::tables(&client).await.context("cannot list the tables")?;
    for columns in &tables {
        let path = file_of(&columns.table, key.is_some());
        let target = partial.path().join(&path);
        let unwritable = |error| unwritable(&target, error);
        let mut writer = seal::Writer::create(&target, &format!("{}/{path}", backup.id), key).map_err(unwritable)?;
        let Columns { table, names } = columns;
        let copy = format!("copy (select {names} from {}) to stdout", state::quoted(table));
        let unread = || format!("cannot read {table}; make backups as the owner of the tables (MIGRATE_USER)");
        let mut chunks = pin!(client.copy_out(&copy).await.with_context(unread)?);
        while let Some(chunk) = chunks.try_next().await.with_context(unread)? {
            writer.write_all(&chunk).map_err(unwritable)?;
        }
        backup.note(&path, writer.finish().map_err(unwritable)?);
    }
    backup.state.tables = state::hashes(&client, &tables).await?;
    for row in client.query(SEQUENCES, &[]).await.context("cannot read the sequences")? {
        backup.sequences.push(Sequence { name: row.try_get(0)?, last: row.try_get(1)? });
    }
    partial.finish(&backup, key)?;
    Ok(backup)
}

fn file_of(table: &str, is_sealed: bool) -> String {
    format!("tables/{}.copy{}", table.replace('/', "_"), if is_sealed { SUFFIX } else { "" })
}

/// Loads a backup into an empty database. If that fails, the database is empty again.
///
/// # Errors
/// When the database is not empty, the backup is damaged, or a table differs.
pub async fn restore(
    server: &ConnInfo,
    folder: &Folder,
    backup: &Backup,
    key: Option<&Key>,
    tables: &dyn Tables,
) -> anyhow::Result<()> {
    backup.expect_key(key)?;
    backup.check(&folder.directory(backup))?;
    if backup.schema_version > migrate::latest_version() {
        bail!(
            "backup {} was made by a newer release (schema {}, this one knows {}); restore it with that one",
            backup.id,
            backup.schema_version,
            migrate::latest_version()
        );
    }
    let owner = server.as_migrator().unwrap_or_else(|| server.clone());
    let mut client = migrate::connect(&owner).await.context("cannot connect to the database of --into")?;
    claim(&client).await?;
    let outcome = async {
        migrate::prepare(server, tables, || ()).await.context("cannot make the tables")?;
        fill(&mut client, folder, backup, key).await
    }
    .await;
    if outcome.is_err() {
        undo(client, &owner).await;
        return outcome;
    }
    client.batch_execute("analyze").await.context("cannot gather statistics")
}

/// Removes what a failed restore has created.
async fn undo(client: Client, owner: &ConnInfo) {
    let undone = async {
        let client = if client.is_closed() { migrate::connect(owner).await? } else { client };
        // The server may still execute the statement that failed here.
        client.batch_execute(&format!("{}; set lock_timeout = '10s'", state::FORMATS)).await?;
        // The commit is the last statement; without an answer its outcome is unknown.
        let marker = client.query_one("select to_regclass($1) is not null", &[&MARKER]).await?;
        if marker.try_get(0)? { anyhow::Ok(client.batch_execute(UNDO).await?) } else { Ok(()) }
    };
    if let Err(error) = undone.await {
        let error = format!("{error:#}");
        tracing::warn!(
            error,
            "the database keeps tables of a restore that has failed; the next restore into it replaces them"
        );
    }
}

/// Loads every table and compares it, in one transaction.
async fn fill(client: &mut Client, folder: &Folder, backup: &Backup, key: Option<&Key>) -> anyhow::Result<()> {
    client.batch_execute(state::FORMATS).await?;
    let transaction = client.transaction().await?;
    for table in &backup.state.tables {
        load(&transaction, folder, backup, key, table).await?;
    }
    for Sequence { name, last } in &backup.sequences {
        let set = format!("select setval($1::text::regclass, {last})");
        transaction.query_one(&set, &[&state::quoted(name)]).await.with_context(|| format!("cannot set {name}"))?;
    }
    let found = state::hashes(transaction.client(), &backup.state.columns()).await?;
    backup.expect_same(&found)?;
    restored::move_versions(transaction.client()).await?;
    transaction.batch_execute(&format!("drop table {MARKER}")).await?;
    transaction.commit().await.context("the rows may or may not be stored: postgres did not answer the commit")
}

/// Requires a database to have no tables, except those of an interrupted restore.
async fn claim(client: &Client) -> anyhow::Result<()> {
    let marker = client.query_one("select to_regclass($1) is not null", &[&MARKER]).await?;
    if marker.try_get(0)? {
        return Ok(());
    }
    let tables = state::tables(client).await.context("cannot list the tables")?;
    if let Some(first) = tables.first() {
        bail!("the database of --into is not empty: it has the table {}; specify an empty database", first.table);
    }
    client.batch_execute(MARK).await.context("cannot make a table")
}

async fn load(
    transaction: &Transaction<'_>,
    folder: &Folder,
    backup: &Backup,
    key: Option<&Key>,
    table: &Table,
) -> anyhow::Result<()> {
    let name = state::quoted(&table.name);
    let file = file_of(&table.name, backup.key.is_some());
    let path = folder.directory(backup).join(&file);
    let mut rows = seal::open(&path, &format!("{}/{file}", backup.id), key)?;
    let refused =
        || format!("cannot load {}; a table of a description needs that description (RESOURCES_DIR)", table.name);
    // Rows that migrations inserted are removed, and triggers must not record the loaded rows as changes.
    let clear = format!("alter table {name} disable trigger user; delete from {name}");
    transaction.batch_execute(&clear).await.with_context(refused)?;
    let copy = format!("copy {name} ({}) from stdin", table.columns);
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&copy).await.with_context(refused)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = rows.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if length == 0 {
            break;
        }
        sink.send(Bytes::copy_from_slice(&buffer[..length])).await.with_context(refused)?;
    }
    sink.finish().await.with_context(refused)?;
    transaction.batch_execute(&format!("alter table {name} enable trigger user")).await.with_context(refused)
}
