//! Copies a whole cluster into one of a newer release, and compares the two: roles, databases, tables, rows.
//!
//! `pg_dumpall` reads the old cluster and `psql` fills the new one, so that tables, functions and roles of other applications
//! are copied as well. Every table is compared by the hash that backups use.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail};
use tokio_postgres::{Client, Config};

use super::record::{Columns, State};
use super::state;
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::{Server, Upgrade};
use crate::db::migrate;

/// The role that both clusters have from the start, as which everything here runs: it is neither dropped nor created.
const SUPERUSER: [&str; 2] = ["DROP ROLE IF EXISTS postgres;", "CREATE ROLE postgres;"];
/// The line at which the databases begin, whose rows may contain any text.
const FIRST_DATABASE: &str = "\\connect ";

const TABLESPACES: &str = "select string_agg(spcname, ', ') from pg_tablespace where spcname !~ '^pg_'";
const ALTERED: &str = "select string_agg(name, ', ' order by name) from pg_file_settings
    where sourcefile like '%/postgresql.auto.conf'";
const DATABASES: &str = "select datname::text from pg_database where datallowconn order by datname";
const SCHEMAS: &str =
    "select nspname::text from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
    order by nspname";
/// The objects of the whole cluster, each as a text; passwords as they are stored.
const SHARED: &str = "
    select 'role ' || row(rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
        rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil)::text from pg_authid where rolname !~ '^pg_'
    union all select format('member %s of %s, admin %s', m.member::regrole, m.roleid::regrole, m.admin_option)
        from pg_auth_members m where m.member::regrole::text !~ '^pg_'
    union all select format('database %s of %s in %s, %s, %s', datname, datdba::regrole, pg_encoding_to_char(encoding),
        datcollate, datctype) from pg_database where datallowconn
    union all select format('settings of %s in %s: %s', s.setrole::regrole, d.datname, array_to_string(s.setconfig, ', '))
        from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase";
/// The objects of a database, without rows. Not compared are privileges that only one of the releases has, constraints that
/// only one of them lists (not null, since 18), and the parentheses of conditions, which change when a condition is parsed
/// again.
const CONTENTS: &str = "
    with ours as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'),
    extended as (select classid, objid from pg_depend where deptype = 'e'),
    classes as (select c.oid, c.relkind, c.relowner, c.relacl, format('%I.%I', nspname, relname) as name
        from pg_class c join ours on ours.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'S', 'i', 'I', 'f')
            and not exists (select from extended e where e.classid = 'pg_class'::regclass and e.objid = c.oid))
    select format('%s %s of %s', relkind, name, relowner::regrole) from classes
    union all select format('privilege %s on %s for %s', privilege_type, name, coalesce(nullif(grantee, 0)::regrole::text, 'all'))
        from classes, aclexplode(relacl) where grantee <> relowner and privilege_type <> 'MAINTAIN'
    union all select format('constraint %I of %s, %s', conname, name,
            case contype when 'c' then '' else pg_get_constraintdef(k.oid) end)
        from pg_constraint k join classes on classes.oid = conrelid where contype <> 'n'
    union all select format('trigger %I of %s, %s', tgname, name, tgenabled)
        from pg_trigger t join classes on classes.oid = tgrelid where not tgisinternal
    union all select format('function %s, %s', p.oid::regprocedure, md5(prosrc)) from pg_proc p join ours on ours.oid = pronamespace
        where not exists (select from extended e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all select format('sequence %I.%I at %s', schemaname, sequencename, last_value) from pg_sequences
    union all select format('extension %I', extname) from pg_extension
    union all select format('large objects: %s', count(*)) from pg_largeobject_metadata";
/// The list of migrations, which [`state::tables`] omits.
const MIGRATIONS: &str = "refinery_schema_history";
const HAS_MIGRATIONS: &str = "select to_regclass($1) is not null";

/// Numbers of what was copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// Databases.
    pub databases: usize,
    /// Tables in them.
    pub tables: usize,
    /// Rows in those.
    pub rows: i64,
    /// Settings made by `alter system`, which are not copied.
    pub left_behind: Option<String>,
}

/// Copies everything and compares it; both clusters are stopped when this returns.
///
/// # Errors
/// When a program fails, or something differs.
pub async fn copy(upgrade: &Upgrade) -> anyhow::Result<Copied> {
    let old = upgrade.start_old()?;
    let client = connect(&old, "postgres").await?;
    let spaces: Option<String> = client.query_one(TABLESPACES, &[]).await?.try_get(0)?;
    if let Some(spaces) = spaces {
        bail!("the cluster has tablespaces ({spaces}), which this program did not make; upgrade it with pg_upgrade");
    }
    let new = upgrade.start_new()?;
    pour(upgrade, &old.config(), &new.config())?;
    let mut copied = compare(&old, &new).await?;
    copied.left_behind = client.query_one(ALTERED, &[]).await?.try_get(0)?;
    Ok(copied)
}

async fn connect(server: &Server, database: &str) -> anyhow::Result<Client> {
    let mut config = server.config();
    config.dbname(database);
    migrate::connect(&ConnInfo::from_config(config)?).await.context("cannot connect to the cluster")
}

/// Pipes the dump of the old cluster into the new one.
fn pour(upgrade: &Upgrade, old: &Config, new: &Config) -> anyhow::Result<()> {
    let data = upgrade.data();
    let programs = upgrade.programs();
    let (mut dump, dump_said) = spawn(
        programs
            .command("pg_dumpall", &data)?
            .args(["--clean", "--if-exists", "--no-password"])
            .envs(ConnInfo::from_config(old.clone())?.variables())
            .stdout(Stdio::piped()),
    )?;
    let (mut load, load_said) = spawn(
        programs
            .command("psql", &data)?
            .args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null"])
            .envs(ConnInfo::from_config(new.clone())?.variables())
            .env("PGOPTIONS", "-c client_min_messages=warning")
            .stdin(Stdio::piped()),
    )?;
    let from = BufReader::new(dump.stdout.take().expect("piped"));
    let written = relay(from, load.stdin.take().expect("piped"));
    let mut failures = Vec::new();
    for (name, mut child, said) in [("psql", load, load_said), ("pg_dumpall", dump, dump_said)] {
        let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
        if !status.success() {
            failures.push(format!("{name} failed ({status}): {}", said.join().unwrap_or_default().trim()));
        }
    }
    if failures.is_empty() {
        return written.context("cannot pass on the dump");
    }
    bail!("the cluster cannot be copied: {}", failures.join("; "))
}

/// Starts a program, and reads its error output in a thread.
fn spawn(command: &mut Command) -> anyhow::Result<(Child, JoinHandle<String>)> {
    let program = command.get_program().to_owned();
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let mut output = child.stderr.take().expect("piped");
    let reader = thread::spawn(move || {
        let mut said = String::new();
        let _ = output.read_to_string(&mut said); // the status is checked below
        said
    });
    Ok((child, reader))
}

/// Copies a dump without the statements for the role that exists already.
fn relay(mut from: impl BufRead, mut into: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.starts_with(FIRST_DATABASE.as_bytes()) {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii_end();
        if !SUPERUSER.iter().any(|statement| text == statement.as_bytes()) {
            into.write_all(&line)?;
        }
    }
    io::copy(&mut from, &mut into).map(drop)
}

async fn compare(old: &Server, new: &Server) -> anyhow::Result<Copied> {
    let (before, after) = (connect(old, "postgres").await?, connect(new, "postgres").await?);
    expect_same("the cluster", &lines(&before, SHARED).await?, &lines(&after, SHARED).await?)?;
    let mut copied = Copied::default();
    for row in before.query(DATABASES, &[]).await? {
        let name: String = row.try_get(0)?;
        let (before, after) = (connect(old, &name).await?, connect(new, &name).await?);
        expect_same(&format!("database {name}"), &lines(&before, CONTENTS).await?, &lines(&after, CONTENTS).await?)?;
        for row in before.query(SCHEMAS, &[]).await? {
            let schema: String = row.try_get(0)?;
            let look = format!("{}; set search_path = {}", state::FORMATS, state::quoted(&schema));
            before.batch_execute(&look).await?;
            after.batch_execute(&look).await?;
            let mut tables = state::tables(&before).await?;
            if before.query_one(HAS_MIGRATIONS, &[&MIGRATIONS]).await?.try_get(0)? {
                let names = "version, name, applied_on, checksum".to_owned();
                tables.push(Columns { table: MIGRATIONS.to_owned(), names });
            }
            let tables = state::hashes(&before, &tables).await?;
            copied.tables += tables.len();
            copied.rows += tables.iter().map(|table| table.rows).sum::<i64>();
            let state = State { at: String::new(), lsn: String::new(), tables };
            let different = state.differences(&state::hashes(&after, &state.columns()).await?);
            if !different.is_empty() {
                bail!("the copy of database {name}, schema {schema}, differs: {}", different.join("; "));
            }
        }
        after.batch_execute("analyze").await.context("cannot gather statistics")?;
        copied.databases += 1;
    }
    Ok(copied)
}

async fn lines(client: &Client, query: &str) -> anyhow::Result<BTreeSet<String>> {
    client.query(query, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Reports the first difference, without passwords.
fn expect_same(what: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> anyhow::Result<()> {
    let shown = |line: &String| line.split(',').next().unwrap_or_default().to_owned();
    let different: Vec<String> = before.symmetric_difference(after).map(shown).collect();
    match different.first() {
        None => Ok(()),
        Some(first) => bail!("the copy of {what} differs in {} places, the first of them: {first}", different.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superuser_is_left_out_and_rows_are_not_looked_at() {
        let dump = "CREATE ROLE postgres;\r\nCREATE ROLE postgres2;\n\\connect template1\nCREATE ROLE postgres;\n";
        let mut relayed = Vec::new();
        relay(dump.as_bytes(), &mut relayed).expect("relayed");
        assert_eq!(
            String::from_utf8(relayed).expect("a text"),
            "CREATE ROLE postgres2;\n\\connect template1\nCREATE ROLE postgres;\n"
        );
    }
}
