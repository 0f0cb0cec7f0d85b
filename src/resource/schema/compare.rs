//! Compares an existing table with its description.

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
use super::table::{Table, TableColumn, TableIndex};
use super::{check, constraint, ddl, definition, history, indexes, literal, remedy};

/// A larger table is indexed concurrently, so that its writers are not blocked.
const SMALL_BYTES: i64 = 8 * 1024 * 1024;

/// Maximum wait of a change for a lock on the table, held by a backup for example; writers that queue behind it wait as long.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before the next attempt, in which these writers proceed.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// Why a table cannot be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// A statement failed, or PostgreSQL is unavailable.
    #[error("cannot bring the table of {resource} up to date")]
    Postgres {
        /// The resource.
        resource: &'static str,
        /// Why.
        #[source]
        reason: tokio_postgres::Error,
    },
    /// The table differs in ways that are not resolved automatically.
    #[error("the table of {resource} differs from its description: {}", described(.differences))]
    Differs {
        /// The resource.
        resource: &'static str,
        /// These differences, with the SQL that would resolve them.
        differences: Vec<Difference>,
    },
}

fn described(differences: &[Difference]) -> String {
    let each = differences
        .iter()
        .map(|difference| format!("{}; to change the table: {};", difference.what, difference.sql.join("; ")));
    each.collect::<Vec<_>>().join(" ")
}

/// A difference between a table and its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// A description of it.
    pub what: String,
    /// The SQL that would resolve it.
    pub sql: Vec<String>,
    /// Whether that loses no data and rejects nothing accepted before.
    pub is_safe: bool,
    /// Whether the statements must run outside a transaction.
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

/// The differences of a resource's table; `None` means that it does not exist.
pub fn differences(resource: &Resource, table: Option<&Table>) -> Vec<Difference> {
    let Some(table) = table else {
        return vec![Difference::safe(format!("table {} is missing", resource.table), ddl(resource))];
    };
    let mut found = Vec::new();
    let alter = format!("alter table {}", quoted(resource.table));
    let is_own = |name: &str, sql_type: &str| {
        table.columns.get(name).is_some_and(|column| column.sql_type == sql_type && column.is_required)
    };
    if !is_own("uuid", "uuid") || !is_own("version", "bigint") {
        let what = format!(
            "it must have the columns uuid uuid not null and version bigint not null, as tables created by this program; the \
             statements rename it to {}_before and create a new one, into which you can copy its rows",
            resource.table
        );
        return vec![Difference::unsafe_(what, remedy::replace(resource))];
    }
    for column in resource.fields() {
        match table.columns.get(column.identifier) {
            None => found.push(added(resource, column, table, &alter)),
            Some(known) => found.extend(changed(resource, column, known, table, &alter)),
        }
        found.extend(index(resource, column, table));
    }
    for (name, column) in &table.columns {
        let is_known = resource.columns.iter().any(|known| known.identifier == name) || name == "version";
        if !is_known && column.is_required && !column.has_default {
            found.push(Difference::unsafe_(
                format!("column {name} is not in the description, and rows cannot be inserted without it"),
                vec![format!("{alter} alter column {} drop not null", quoted(name))],
            ));
        }
    }
    found.extend(history_of(resource, table));
    found
}

/// The difference of the history table, if the resource has a history.
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
            format!("table {name} lacks columns that this release adds"),
            misfits.iter().map(add).collect(),
        ));
    }
    Some(Difference::unsafe_(
        format!("table {name} was not created by this program for the history"),
        vec![format!("{alter} rename to {}", quoted(&format!("{}_history_before", resource.table)))],
    ))
}

fn added(resource: &Resource, column: &Column, table: &Table, alter: &str) -> Difference {
    let what = format!("column {} is missing", column.identifier);
    if column.nullable || !column.default.is_null() {
        let check =
            check(column).map(|rule| format!(", add constraint {} check ({rule})", constraint(resource, column)));
        return Difference::safe(
            what,
            vec![format!("{alter} add column {}{}", definition(column), check.unwrap_or_default())],
        );
    }
    let (value, sql) = remedy::add(resource, column, alter);
    let renames = remedy::renames(resource, column, table, alter);
    let each = renames.iter().map(|(from, sql)| format!(" (if it is column {from} renamed: {};)", sql.join("; ")));
    Difference::unsafe_(
        format!(
            "{what}, may not be null, and has no default for existing rows{}; these statements give them {value}: replace it",
            each.collect::<String>()
        ),
        sql,
    )
}

fn changed(resource: &Resource, column: &Column, known: &TableColumn, table: &Table, alter: &str) -> Vec<Difference> {
    let (sql, name) = (column.sql, column.identifier);
    let mut found = Vec::new();
    let sql_type = column.sql_type();
    if known.sql_type != sql_type {
        found.push(Difference::unsafe_(
            format!("column {name} has type {} instead of {sql_type}", known.sql_type),
            remedy::retype(resource, column, known, table, alter),
        ));
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
    if known.sql_type != sql_type {
        return found;
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

/// The missing indexes of a column.
fn index(resource: &Resource, column: &Column, table: &Table) -> Vec<Difference> {
    let has = |trigram: bool| {
        let fits = |index: &TableIndex| index.column == column.identifier && index.is_trigram == trigram;
        table.indexes.iter().any(fits)
    };
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
            // The key's index must be the newest, because PostgreSQL prefers the newest of equally cheap indexes.
            let (table, key) = (quoted(resource.table), quoted(&format!("{}_pkey", resource.table)));
            sql.push(format!("alter table {table} drop constraint {key}, add constraint {key} primary key (uuid)"));
        }
        found.push(Difference { is_concurrent: !is_small, ..Difference::safe(what, sql) });
    }
    if column.index == IndexKind::Trigram && !has(true) && table.columns.contains_key(column.identifier) {
        // It may be missing permanently if the operator does not allow the extension.
        found.push(Difference::safe(
            format!("column {} has no index for patterns", column.identifier),
            vec![create[1].clone()],
        ));
    }
    found
}

/// Applies the changes that can run in a transaction, unless the table stays locked.
async fn change(client: &mut Client, differences: &[Difference]) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis())).await?;
    for statement in differences.iter().filter(|difference| !difference.is_concurrent).flat_map(|d| &d.sql) {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await
}

/// Brings the table of a resource up to date and returns the changes; called under the migration lock.
///
/// # Errors
/// [`SchemaError`]; nothing is changed if any difference is not safe.
pub async fn update(client: &mut Client, resource: &'static Resource) -> Result<Vec<Difference>, SchemaError> {
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
        tracing::info!(resource = resource.name, "the table is locked; retrying its change");
        // Without the pause, waiting for the lock again would block all requests that came after it.
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    for statement in differences.iter().filter(|difference| difference.is_concurrent).flat_map(|d| &d.sql) {
        client.batch_execute(statement).await.map_err(failed)?;
    }
    Ok(differences)
}
