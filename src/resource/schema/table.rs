//! Reads a table from PostgreSQL's catalog.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::super::definition::Resource;
use super::super::history::sql::of;
use super::super::identifier::quoted;

/// A table as in the catalog.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) columns: BTreeMap<String, TableColumn>,
    /// Check constraints by name.
    pub(super) checks: BTreeMap<String, String>,
    pub(super) indexes: Vec<TableIndex>,
    pub(super) bytes: i64,
    /// The columns of its history.
    pub(super) history: BTreeMap<String, TableColumn>,
}

/// A column as in the catalog.
#[derive(Debug)]
pub struct TableColumn {
    pub(super) sql_type: String,
    pub(super) is_required: bool,
    pub(super) has_default: bool,
}

/// A valid index.
#[derive(Debug)]
pub struct TableIndex {
    /// Its first column.
    pub(super) column: String,
    pub(super) is_trigram: bool,
    /// Its name in SQL.
    pub(super) name: String,
}

const COLUMNS: &str = "select attname::text, format_type(atttypid, atttypmod), attnotnull, atthasdef or attidentity <> '' \
     from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum";

const CHECKS: &str = "select conname::text, pg_get_constraintdef(oid) from pg_constraint \
     where conrelid = to_regclass($1) and contype = 'c'";

const INDEXES: &str = "select a.attname::text, exists (select from pg_opclass o where o.oid = i.indclass[0] and \
     o.opcname = 'gin_trgm_ops'), i.indexrelid::regclass::text from pg_index i \
     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
     where i.indrelid = to_regclass($1) and i.indisvalid";

const BYTES: &str = "select coalesce(pg_relation_size(to_regclass($1)), 0)";

impl Table {
    /// Reads the table of a resource; `None` if it does not exist.
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
            let (column, is_trigram, name) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            table.indexes.push(TableIndex { column, is_trigram, name });
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
