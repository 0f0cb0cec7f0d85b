//! Every SQL statement of lists and statistics.
//!
//! The list that everybody asks for, all columns of all rows in key order, is a prepared statement. All others are texts
//! of their own: they are planned each time and never kept, so that no client can fill a connection with prepared
//! statements.

use tokio_postgres::Row;
use uuid::Uuid;

use super::super::column::Column;
use super::super::definition::{Function, Measure, Resource};
use super::super::kind::Kind;
use super::cursor::Position;
use super::filter::Filter;
use super::keyset::keyset_ranges;
use super::order::{Key, Order};
use super::sql::Statement;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::reads::Reader;
use crate::db::session::{Planner, Query};

/// Hands over the rows whose keys follow `after`, in key order, at most `limit` of them.
///
/// # Errors
/// The pool's, or what `each` says.
pub async fn page(
    resource: &'static Resource,
    reader: &Reader,
    after: Uuid,
    limit: i64,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    reader.for_each(&resource.db.list, Query::Prepared(resource.sql.page, &[&after, &limit]), each).await
}

/// Hands over the rows behind a position, or from the beginning, in order, at most `limit` of them.
///
/// # Errors
/// The pool's, or what `each` says.
pub async fn rows(
    resource: &'static Resource,
    reader: &Reader,
    filter: &Filter,
    order: &Order,
    from: Option<&Position>,
    limit: usize,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    let mut missing = limit;
    let is_indexed = filter.0.is_empty() && order.is_indexed();
    for range in keyset_ranges(order, from) {
        let mut statement = Statement::new(resource.sql.list);
        let planner = if is_indexed {
            statement.range(&range.bounds);
            // Nulls are a keyset range of their own, so where they come in the order is left to the index.
            statement.order(order.keys().iter().map(|key| Key::new(key.column, key.descending)), missing);
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

/// How many rows the filter lets through.
///
/// # Errors
/// The pool's.
pub async fn count(resource: &Resource, reader: &Reader, filter: &Filter) -> Result<i64, StoreError> {
    let mut statement = Statement::new(resource.sql.count);
    statement.rows(filter, None);
    let rows = run(&resource.db.count, reader, &statement).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// About how many rows the filter lets through, from the planner's statistics.
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

/// Most groups of statistics; each is one row of the answer.
pub const GROUPS_MAX: usize = 1000;

/// The number of each group, and its measures, behind the group's own columns.
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

/// PostgreSQL refuses a sum or an average beyond the greatest double. So a double counts as 1e290 at most, of which a table
/// can hold no number that adds up to too much; where the rules bound it, that changes nothing.
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
