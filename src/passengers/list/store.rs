//! Every SQL statement of lists and statistics.
//!
//! The list that everybody asks for, all columns of all rows in key order, is a prepared statement. All others are texts
//! of their own: they are planned each time and never kept, so that no client can fill a connection with prepared
//! statements.

use tokio_postgres::Row;
use uuid::Uuid;

use super::column::Column;
use super::cursor::Position;
use super::filter::Filter;
use super::keyset::keyset_ranges;
use super::order::{Key, Order};
use super::sql::Statement;
use crate::db::error::StoreError;
use crate::db::reads::Reader;
use crate::db::session::{Planner, Query};

const LIST: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers";

const PAGE: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid > $1 order by uuid limit $2";

const COUNT: &str = "select count(*) from passengers";

/// The planner's estimate is a member of the plan; nothing is run.
const ESTIMATE: &str = "explain (format json) select from passengers";

/// Hands over the passengers whose keys follow `after`, in key order, at most `limit` of them.
///
/// # Errors
/// The pool's, or what `each` says.
pub async fn page(
    reader: &Reader,
    after: Uuid,
    limit: i64,
    each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
) -> Result<(), StoreError> {
    reader.for_each(Query::Prepared(PAGE, &[&after, &limit]), each).await
}

/// Hands over the rows behind a position, or from the beginning, in order, at most `limit` of them.
///
/// # Errors
/// The pool's, or what `each` says.
pub async fn rows(
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
        let mut statement = Statement::new(LIST);
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
        reader.for_each(Query::Once(planner, &statement.text, &statement.params()), each).await?;
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
pub async fn count(reader: &Reader, filter: &Filter) -> Result<i64, StoreError> {
    let mut statement = Statement::new(COUNT);
    statement.rows(filter, None);
    let rows = run(reader, &statement).await?;
    Ok(rows.first().ok_or(StoreError::Missing)?.try_get(0)?)
}

/// About how many rows the filter lets through, from the planner's statistics.
///
/// # Errors
/// The pool's.
pub async fn estimate(reader: &Reader, filter: &Filter) -> Result<i64, StoreError> {
    let mut statement = Statement::new(ESTIMATE);
    statement.rows(filter, None);
    let rows = run(reader, &statement).await?;
    let plan: serde_json::Value = rows.first().ok_or(StoreError::Missing)?.try_get(0)?;
    Ok(plan[0]["Plan"]["Plan Rows"].as_i64().unwrap_or_default())
}

/// Most groups of statistics; each is one row of the answer.
pub const GROUPS_MAX: usize = 1000;

/// Any double is a fare, and PostgreSQL refuses a sum or an average beyond the greatest double. So a fare counts as 1e290
/// at most, of which a table can hold no number that adds up to too much.
const AGGREGATES: &str = "count(*), count(*) filter (where survived), avg(age), \
    sum(least(fare, 1e290)) / nullif(count(*), 0) from passengers";

/// Count, survivors, mean age and mean fare of each group, behind the group's own columns.
///
/// # Errors
/// The pool's.
pub async fn statistics(reader: &Reader, filter: &Filter, by: &[Column]) -> Result<Vec<Row>, StoreError> {
    let mut statement = Statement::new("select ");
    for column in by {
        statement.push(column.plain_sql());
        statement.push(", ");
    }
    statement.push(AGGREGATES);
    statement.rows(filter, None);
    for (keyword, sql) in [(" group by ", Column::plain_sql as fn(Column) -> &'static str), (" order by ", Column::sql)]
    {
        for (index, column) in by.iter().enumerate() {
            statement.push(if index == 0 { keyword } else { ", " });
            statement.push(sql(*column));
        }
    }
    statement.limit(GROUPS_MAX);
    run(reader, &statement).await
}

async fn run(reader: &Reader, statement: &Statement) -> Result<Vec<Row>, StoreError> {
    reader.collect(Query::Once(Planner::Free, &statement.text, &statement.params())).await
}
