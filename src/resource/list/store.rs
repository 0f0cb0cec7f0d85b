//! The SQL statements of lists and statistics.
//!
//! The most frequent list, all columns of all rows in key order, is a prepared statement. All others are planned each time and
//! never cached, so that no client can fill a connection with prepared statements.

use tokio_postgres::Row;
use uuid::Uuid;

use super::super::column::Column;
use super::super::definition::{Function, Measure, Resource};
use super::super::kind::Kind;
use super::cursor::CursorPosition;
use super::filter::Filter;
use super::keyset::keyset_ranges;
use super::order::{Order, SortKey};
use super::sql::Statement;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::planner::Planner;
use crate::db::reads::Reader;
use crate::db::session::Query;

/// Passes at most `limit` rows with keys after `after` to `each`, in key order.
///
/// # Errors
/// The pool's, or those of `each`.
pub async fn page(
    resource: &'static Resource,
    reader: &Reader,
    after: Uuid,
    limit: i64,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    reader.for_each(&resource.db.list, Query::Prepared(resource.sql.page, &[&after, &limit]), each).await
}

/// Passes at most `limit` rows after a position, or from the beginning, to `each`, in order.
///
/// # Errors
/// The pool's, or those of `each`.
pub async fn rows(
    resource: &'static Resource,
    reader: &Reader,
    filter: &Filter,
    order: &Order,
    from: Option<&CursorPosition>,
    limit: usize,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    let mut missing = limit;
    let is_indexed = filter.0.is_empty() && order.is_indexed();
    for range in keyset_ranges(order, from) {
        let mut statement = Statement::new(resource.sql.list);
        let planner = if is_indexed {
            statement.range(&range.bounds);
            // Nulls are a keyset range of their own, so their place in the order is left to the index.
            statement.order(order.keys().iter().map(|key| SortKey::new(key.column, key.descending)), missing);
            Planner::Ordered
        } else {
            statement.rows(filter, Some(&range));
            statement.order(range.keys.iter().map(|key| **key), missing);
            Planner::Free
        };
        let each = &mut |row| {
            missing -= 1;
            each(row)
        };
        let query = Query::Once(planner, &statement.text, &statement.params());
        reader.for_each(&resource.db.list, query, each).await?;
        if missing == 0 {
            break;
        }
    }
    Ok(())
}

/// The number of rows that match the filter.
///
/// # Errors
/// The pool's.
pub async fn count(resource: &Resource, reader: &Reader, filter: &Filter) -> Result<i64, StoreError> {
    let mut statement = Statement::new(resource.sql.count);
    statement.rows(filter, None);
    let rows = run(&resource.db.count, reader, &statement).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// The estimated number of rows that match the filter, from the planner's statistics.
///
/// # Errors
/// The pool's.
pub async fn estimate(resource: &Resource, reader: &Reader, filter: &Filter) -> Result<i64, StoreError> {
    let mut statement = Statement::new(resource.sql.estimate);
    statement.rows(filter, None);
    let rows = run(&resource.db.estimate, reader, &statement).await?;
    let plan: serde_json::Value = rows.first().ok_or(StoreError::Missing)?.try_get(0)?;
    Ok(plan[0]["Plan"]["Plan Rows"].as_i64().unwrap_or_default())
}

/// Maximum number of groups of statistics; each is one row of the response.
pub const GROUPS_MAX: usize = 1000;

/// The grouping columns of each group, followed by its number of rows and its measures.
///
/// # Errors
/// The pool's.
pub async fn statistics(
    resource: &'static Resource,
    reader: &Reader,
    filter: &Filter,
    by: &[&'static Column],
) -> Result<Vec<Row>, StoreError> {
    let mut statement = Statement::new("select ");
    for column in by {
        statement.push(column.sql);
        statement.push(", ");
    }
    statement.push("count(*)");
    for measure in resource.statistics.iter().flat_map(|statistics| &statistics.measures) {
        statement.text.push_str(", ");
        statement.text.push_str(&aggregate(resource, measure));
    }
    statement.push(resource.sql.from);
    statement.rows(filter, None);
    for (keyword, sql) in [
        (" group by ", (|column| column.sql) as fn(&Column) -> &'static str),
        (" order by ", |column| column.ordered_sql),
    ] {
        for (index, column) in by.iter().enumerate() {
            statement.push(if index == 0 { keyword } else { ", " });
            statement.push(sql(column));
        }
    }
    statement.limit(GROUPS_MAX);
    run(&resource.db.statistics, reader, &statement).await
}

/// PostgreSQL rejects a sum or an average beyond the range of a double. So unbounded doubles are clamped to ±1e290; a table
/// cannot contain enough of them to overflow. If the rules bound the column, nothing is clamped.
fn aggregate(resource: &Resource, measure: &Measure) -> String {
    let column = &resource.columns[measure.column];
    let sql = column.sql;
    let (clamped, is_bounded) = match column.kind {
        Kind::Number { minimum, maximum } => {
            let above = if maximum.is_none() { format!("least({sql}, 1e290)") } else { sql.to_owned() };
            let below = if minimum.is_none() { format!("greatest({above}, -1e290)") } else { above };
            (below, minimum.is_some() && maximum.is_some())
        }
        _ => (sql.to_owned(), true),
    };
    match measure.function {
        Function::Count => format!("count(*) filter (where {sql})"),
        Function::Rate => format!("count(*) filter (where {sql})::float8 / nullif(count({sql}), 0)"),
        Function::Mean if is_bounded => format!("avg({sql})::float8"),
        Function::Mean => format!("sum({clamped}) / nullif(count({sql}), 0)"),
        Function::Sum => format!("sum({clamped})::float8"),
        Function::Min => format!("min({sql})::float8"),
        Function::Max => format!("max({sql})::float8"),
    }
}

async fn run(operation: &DbOperation, reader: &Reader, statement: &Statement) -> Result<Vec<Row>, StoreError> {
    reader.collect(operation, Query::Once(Planner::Free, &statement.text, &statement.params())).await
}
