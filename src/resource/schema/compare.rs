//! A table that is there beside its description.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::column::{Column, IndexKind};
use super::super::definition::Resource;
use super::super::history::sql::of;
use super::super::identifier::quoted;
use super::super::kind::Kind;
use super::rule::Rule;
use super::{check, constraint, ddl, definition, history, indexes, literal};

/// A larger table is indexed without holding up its writers.
const SMALL_BYTES: i64 = 8 * 1024 * 1024;

/// Longest that a change waits for whoever uses the table, a backup say: those who come after it, who change rows, wait as long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// For them to get on, before it is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// Why a table cannot be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// PostgreSQL refuses a statement, or is away.
    #[error("cannot bring the table of {resource} up to date")]
    Postgres {
        /// The resource.
        resource: &'static str,
        /// Why.
        #[source]
        reason: tokio_postgres::Error,
    },
    /// The difference is not one that this program may change by itself.
    #[error("the table of {resource} differs from its description: {}", told(.differences))]
    Differs {
        /// The resource.
        resource: &'static str,
        /// Everything that is different, and what would mend it.
        differences: Vec<Difference>,
    },
}

fn told(differences: &[Difference]) -> String {
    let each = differences
        .iter()
        .map(|difference| format!("{}; to change the table: {};", difference.what, difference.sql.join("; ")));
    each.collect::<Vec<_>>().join(" ")
}

/// What is different in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In words.
    pub what: String,
    /// What would mend it.
    pub sql: Vec<String>,
    /// Whether that loses nothing and refuses nothing that was taken before.
    pub is_safe: bool,
    /// Whether the statements must run outside of a transaction.
    pub is_concurrent: bool,
}

impl Difference {
    fn safe(what: impl Into<String>, sql: Vec<String>) -> Self {
        Self { what: what.into(), sql, is_safe: true, is_concurrent: false }
    }

    fn unsafe_(what: impl Into<String>, sql: Vec<String>) -> Self {
        Self { is_safe: false, ..Self::safe(what, sql) }
    }
}

/// A table as the catalog has it.
#[derive(Debug, Default)]
pub struct Table {
    columns: BTreeMap<String, TableColumn>,
    /// Check constraints by name.
    checks: BTreeMap<String, String>,
    /// The first column of each usable index, and whether it is one for patterns.
    indexes: Vec<(String, bool)>,
    bytes: i64,
    /// The columns of its history.
    history: BTreeMap<String, TableColumn>,
}

#[derive(Debug)]
struct TableColumn {
    sql_type: String,
    is_required: bool,
    has_default: bool,
}

const COLUMNS: &str = "select attname::text, format_type(atttypid, atttypmod), attnotnull, atthasdef or attidentity <> '' \
     from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum";

const CHECKS: &str = "select conname::text, pg_get_constraintdef(oid) from pg_constraint \
     where conrelid = to_regclass($1) and contype = 'c'";

const INDEXES: &str = "select a.attname::text, exists (select from pg_opclass o where o.oid = i.indclass[0] and \
     o.opcname = 'gin_trgm_ops') from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
     where i.indrelid = to_regclass($1) and i.indisvalid";

const BYTES: &str = "select coalesce(pg_relation_size(to_regclass($1)), 0)";

impl Table {
    /// The table of a resource, unless there is none.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn read(client: &Client, resource: &Resource) -> Result<Option<Self>, tokio_postgres::Error> {
        let name = quoted(resource.table);
        let mut table = Self { columns: columns(client, &name).await?, ..Self::default() };
        if table.columns.is_empty() {
            return Ok(None);
        }
        if resource.sql.history.is_some() {
            table.history = columns(client, &of(resource.table)).await?;
        }
        for row in client.query(CHECKS, &[&name]).await? {
            table.checks.insert(row.try_get(0)?, row.try_get(1)?);
        }
        for row in client.query(INDEXES, &[&name]).await? {
            table.indexes.push((row.try_get(0)?, row.try_get(1)?));
        }
        table.bytes = client.query_one(BYTES, &[&name]).await?.try_get(0)?;
        Ok(Some(table))
    }
}

async fn columns(client: &Client, table: &str) -> Result<BTreeMap<String, TableColumn>, tokio_postgres::Error> {
    let mut columns = BTreeMap::new();
    for row in client.query(COLUMNS, &[&table]).await? {
        let column =
            TableColumn { sql_type: row.try_get(1)?, is_required: row.try_get(2)?, has_default: row.try_get(3)? };
        columns.insert(row.try_get(0)?, column);
    }
    Ok(columns)
}

/// What is different in the table of a resource, `None` standing for no table.
pub fn differences(resource: &Resource, table: Option<&Table>) -> Vec<Difference> {
    let Some(table) = table else {
        return vec![Difference::safe(format!("table {} is missing", resource.table), ddl(resource))];
    };
    let mut found = Vec::new();
    let alter = format!("alter table {}", quoted(resource.table));
    for (name, sql_type) in [("uuid", "uuid"), ("version", "bigint")] {
        if table.columns.get(name).is_none_or(|column| column.sql_type != sql_type || !column.is_required) {
            let ddl = ddl(resource).join("; ");
            found.push(Difference::unsafe_(
                format!("column {name} must be {sql_type} not null, as this program makes its tables"),
                vec![format!("rename the table, and copy its rows into a new one: {ddl}")],
            ));
        }
    }
    for column in resource.fields() {
        match table.columns.get(column.identifier) {
            None => found.push(added(resource, column, &alter)),
            Some(known) => found.extend(changed(resource, column, known, table, &alter)),
        }
        found.extend(index(resource, column, table));
    }
    for (name, column) in &table.columns {
        let is_known = resource.columns.iter().any(|known| known.identifier == name) || name == "version";
        if !is_known && column.is_required && !column.has_default {
            found.push(Difference::unsafe_(
                format!("column {name} is not in the description, and no row can be added without it"),
                vec![format!("{alter} alter column {} drop not null", quoted(name))],
            ));
        }
    }
    found.extend(history_of(resource, table));
    found
}

/// What is missing of the history, if there is to be one.
fn history_of(resource: &Resource, table: &Table) -> Option<Difference> {
    resource.sql.history.as_ref()?;
    let name = of(resource.table);
    if table.history.is_empty() {
        return Some(Difference::safe(format!("table {name} is missing"), history::ddl(resource)));
    }
    let fits = |column: &str, sql_type: &str| table.history.get(column).is_some_and(|known| known.sql_type == sql_type);
    let misfits: Vec<_> = history::COLUMNS.iter().filter(|(column, sql_type)| !fits(column, sql_type)).collect();
    if misfits.is_empty() {
        return None;
    }
    let alter = format!("alter table {}", of(resource.table));
    let is_later = |column: &str| history::LATER.contains(&column) && !table.history.contains_key(column);
    if misfits.iter().all(|(column, _)| is_later(column)) {
        let add = |(column, sql_type): &&(&str, &str)| format!("{alter} add column {column} {sql_type}");
        return Some(Difference::safe(
            format!("table {name} is from before it kept all that this program keeps"),
            misfits.iter().map(add).collect(),
        ));
    }
    Some(Difference::unsafe_(
        format!("table {name} is none that this program has made for the history"),
        vec![format!("{alter} rename to {}", quoted(&format!("{}_history_before", resource.table)))],
    ))
}

fn added(resource: &Resource, column: &Column, alter: &str) -> Difference {
    let check = check(column).map(|rule| format!(", add constraint {} check ({rule})", constraint(resource, column)));
    let check = check.unwrap_or_default();
    let what = format!("column {} is missing", column.identifier);
    if column.nullable || !column.default.is_null() {
        return Difference::safe(what, vec![format!("{alter} add column {}{check}", definition(column))]);
    }
    let sql = column.sql;
    Difference::unsafe_(
        format!("{what}, may not be null, and has no default for the rows that are there"),
        vec![
            format!("{alter} add column {sql} {}", column.sql_type()),
            format!("update {} set {sql} = (a value)", quoted(resource.table)),
            format!("{alter} alter column {sql} set not null{check}"),
        ],
    )
}

fn changed(resource: &Resource, column: &Column, known: &TableColumn, table: &Table, alter: &str) -> Vec<Difference> {
    let (sql, name) = (column.sql, column.identifier);
    let mut found = Vec::new();
    let sql_type = column.sql_type();
    if known.sql_type != sql_type {
        found.push(Difference::unsafe_(
            format!("column {name} is {} and not {sql_type}", known.sql_type),
            vec![format!("{alter} alter column {sql} type {sql_type} using {sql}::{sql_type}")],
        ));
        return found;
    }
    match (known.is_required, column.nullable) {
        (true, true) => found.push(Difference::safe(
            format!("column {name} may not be null"),
            vec![format!("{alter} alter column {sql} drop not null")],
        )),
        (false, false) => found.push(Difference::unsafe_(
            format!("column {name} may be null"),
            vec![format!("{alter} alter column {sql} set not null")],
        )),
        _ => {}
    }
    if !known.has_default && !column.default.is_null() {
        found.push(Difference::safe(
            format!("column {name} has no default"),
            vec![format!("{alter} alter column {sql} set default {}", literal(&column.default))],
        ));
    }
    found.extend(rule(resource, column, table, alter));
    found
}

fn rule(resource: &Resource, column: &Column, table: &Table, alter: &str) -> Option<Difference> {
    let name = constraint(resource, column);
    let catalog_name = format!("{}_{}", resource.table, column.identifier);
    let there = table.checks.get(&catalog_name);
    let (wanted, allowed) = (check(column), Rule::of(&column.kind));
    let add = wanted.as_ref().map(|rule| format!("add constraint {name} check ({rule})"));
    let (what, is_wider) = match (there, &wanted) {
        (None, None) => return None,
        (None, Some(rule)) => (format!("column {} has no constraint {rule}", column.identifier), false),
        (Some(text), wanted) => {
            let of_table = Rule::read(text, column.identifier);
            let fixed = matches!(column.kind, Kind::Date | Kind::DateTime);
            if wanted.is_some() && (fixed || of_table.as_ref().is_some_and(|rule| rule.is_same(&allowed))) {
                return None;
            }
            let is_wider = of_table.as_ref().is_some_and(|rule| allowed.includes(rule));
            (format!("constraint {catalog_name} is {text}"), is_wider)
        }
    };
    let drop = there.map(|_| format!("drop constraint {name}"));
    let sql = vec![format!("{alter} {}", drop.into_iter().chain(add).collect::<Vec<_>>().join(", "))];
    Some(if is_wider { Difference::safe(what, sql) } else { Difference::unsafe_(what, sql) })
}

/// What is missing of the indexes of a column.
fn index(resource: &Resource, column: &Column, table: &Table) -> Vec<Difference> {
    let has = |trigram: bool| table.indexes.iter().any(|(first, of)| first == column.identifier && *of == trigram);
    let mut found = Vec::new();
    let create = indexes(resource, column, "create index");
    if column.index >= IndexKind::Ordered && !has(false) {
        let is_small = table.bytes <= SMALL_BYTES;
        let statement = if is_small {
            create[0].clone()
        } else {
            create[0].replacen("create index", "create index concurrently if not exists", 1)
        };
        let what = format!("column {} has no index", column.identifier);
        let mut sql = vec![statement];
        if is_small {
            // The key's index has to be the newest: among equally cheap ones PostgreSQL takes that.
            let (table, key) = (quoted(resource.table), quoted(&format!("{}_pkey", resource.table)));
            sql.push(format!("alter table {table} drop constraint {key}, add constraint {key} primary key (uuid)"));
        }
        found.push(Difference { is_concurrent: !is_small, ..Difference::safe(what, sql) });
    }
    if column.index == IndexKind::Trigram && !has(true) && table.columns.contains_key(column.identifier) {
        // It may be missing for good where the operator does not let the extension be made.
        found.push(Difference::safe(
            format!("column {} has no index for patterns", column.identifier),
            vec![create[1].clone()],
        ));
    }
    found
}

/// What can be changed in a transaction, unless somebody else uses the table for long.
async fn change(client: &mut Client, differences: &[Difference]) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis())).await?;
    for statement in differences.iter().filter(|difference| !difference.is_concurrent).flat_map(|d| &d.sql) {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await
}

/// Brings the table of a resource up to date and says what was done; under the lock of migrations.
///
/// # Errors
/// [`SchemaError`]; nothing is changed when there is a difference that is left to a person.
pub async fn follow(client: &mut Client, resource: &'static Resource) -> Result<Vec<Difference>, SchemaError> {
    let failed = |reason| SchemaError::Postgres { resource: resource.name, reason };
    let table = Table::read(client, resource).await.map_err(failed)?;
    let differences = differences(resource, table.as_ref());
    if differences.iter().any(|difference| !difference.is_safe) {
        let differences = differences.into_iter().filter(|difference| !difference.is_safe).collect();
        return Err(SchemaError::Differs { resource: resource.name, differences });
    }
    while let Err(error) = change(client, &differences).await {
        if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Err(failed(error));
        }
        tracing::info!(resource = resource.name, "the table is in use; its change is tried again");
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    for statement in differences.iter().filter(|difference| difference.is_concurrent).flat_map(|d| &d.sql) {
        client.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(differences)
}
