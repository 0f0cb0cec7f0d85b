//! The SQL statements of requests on steps.
//!
//! Lists start after a position in their order and end after a number of rows. Each uses an index in that order, so that a
//! batch costs the same wherever it starts. For the same reason the earliest time requested is part of that position in `LIST`:
//! with a second lower bound on the same column PostgreSQL would start there each time.
//!
//! The index used must not depend on the number of steps when the statement was planned. So each order is the whole key of one
//! index; a column that is restricted to one value is compared with a one-element array, because the planner would drop a
//! constant from the order, and the index by time would seem to match as well.

use std::slice::from_ref;

use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::model::{StepFilter, StepPosition};
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::planner::Planner;
use crate::db::pool::Pool;
use crate::db::reads::Reader;
use crate::db::session::{Param, Query};
use crate::resource::value::Value;
use crate::trace::current::commented;

/// The clock is the database's. If it steps back, the step gets the time of its predecessor of the same component and version,
/// because otherwise it could sort before that one. The predecessor is the last row up to the component and version, if it has
/// both.
const RECORD: &str = "insert into steps (ts, component, version, owner, status) \
     select greatest(clock_timestamp(), max(ts)), $1::text, $2::text, $3::text, $4::text from ( \
         select component, version, ts from steps where (component, version) <= ($1, $2) \
         order by component desc, version desc, ts desc, id desc limit 1 \
     ) as last where component = $1 and version = $2 \
     returning id, ts, component, version, owner, status";

const LIST: &str = "select id, ts, component, version, owner, status from steps \
     where (ts, id) > ($1, $2) and ts <= $3 order by ts, id limit $4";

const LIST_OF_COMPONENT: &str = "select id, ts, component, version, owner, status from steps \
     where component = any($5) and (ts, id) > ($1, $2) and ts <= $3 and ($6::text is null or owner = $6) \
     order by component, ts, id limit $4";

const LIST_OF_OWNER: &str = "select id, ts, component, version, owner, status from steps \
     where owner = any($5) and (ts, id) > ($1, $2) and ts <= $3 order by owner, ts, id limit $4";

const POSITION: &str = "select component, version, ts, id from steps where id = any($1) order by id";

/// The duration of a step depends on the next one, so filters that could exclude that one are applied outside the window. The
/// earliest time is the exception: the next step is never before it.
const DURATIONS: &str = "select id, component, version, status, owner, ts, next, \
     extract(epoch from next - ts)::float8 from ( \
         select id, component, version, status, owner, ts, lead(ts) over following as next from steps \
         where (component, version, ts, id) > ($1, $2, $3, $4) and ts >= $5 \
         window following as (partition by component, version order by ts, id) \
     ) as step where ts <= $6 and ($7::text is null or owner = $7) \
     order by component, version, ts, id limit $8";

/// The component, which is a constant here, is omitted from the order, because otherwise PostgreSQL would sort.
const DURATIONS_OF_COMPONENT: &str = "select id, component, version, status, owner, ts, next, \
     extract(epoch from next - ts)::float8 from ( \
         select id, component, version, status, owner, ts, lead(ts) over following as next from steps \
         where component = $1 and (version, ts, id) > ($2, $3, $4) and ts >= $5 \
         window following as (partition by version order by ts, id) \
     ) as step where ts <= $6 and ($7::text is null or owner = $7) \
     order by version, ts, id limit $8";

const SUMMARY: &str = "select status, count(*), count(seconds), percentile_cont(0.5) within group (order by seconds), \
     percentile_cont(0.95) within group (order by seconds) from ( \
         select status, owner, ts, extract(epoch from lead(ts) over following - ts)::float8 as seconds from steps \
         where ts >= $1 window following as (partition by component, version order by ts, id) \
     ) as step where ts <= $2 and ($3::text is null or owner = $3) group by status order by status";

const SUMMARY_OF_COMPONENT: &str = "select status, count(*), count(seconds), \
     percentile_cont(0.5) within group (order by seconds), \
     percentile_cont(0.95) within group (order by seconds) from ( \
         select status, owner, ts, extract(epoch from lead(ts) over following - ts)::float8 as seconds from steps \
         where component = $4 and ts >= $1 window following as (partition by version order by ts, id) \
     ) as step where ts <= $2 and ($3::text is null or owner = $3) group by status order by status";

/// Records a step.
pub static CREATE: DbOperation = DbOperation::new("create", "steps");
static GET: DbOperation = DbOperation::new("get", "steps");
static LIST_OPERATION: DbOperation = DbOperation::new("list", "steps");
static DURATIONS_OPERATION: DbOperation = DbOperation::new("durations", "steps");
static SUMMARY_OPERATION: DbOperation = DbOperation::new("summary", "steps");

/// Records a step that begins now, and returns it.
///
/// # Errors
/// The pool's, or [`StoreError::Conflict`] when a constraint rejects it.
pub async fn record(pool: &Pool, new: &[Value<'_>]) -> Result<Row, StoreError> {
    let rows = pool.write(&CREATE, RECORD, &params(new)).await?;
    rows.into_iter().next().ok_or(StoreError::Missing)
}

/// Records a step in the caller's transaction.
///
/// # Errors
/// As [`record`].
pub async fn record_in(transaction: &Transaction<'_>, new: &[Value<'_>]) -> Result<Row, StoreError> {
    Ok(transaction.query_one(&*commented(RECORD), &params(new)).await?)
}

fn params<'a>(new: &'a [Value<'_>]) -> Vec<Param<'a>> {
    new.iter().map(|value| value as Param<'a>).collect()
}

/// At most `limit` steps after a position in the order of time and id.
///
/// # Errors
/// The pool's.
pub async fn list(
    reader: &Reader,
    filter: &StepFilter,
    after: &StepPosition,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let StepFilter { start, end, component, owner } = filter;
    let (ts, id) = (after.ts, after.id).max((*start, 0));
    match (component, owner) {
        (Some(component), owner) => {
            reader.read(&LIST_OPERATION, LIST_OF_COMPONENT, &[&ts, &id, end, &limit, &from_ref(component), owner]).await
        }
        (None, Some(owner)) => {
            reader.read(&LIST_OPERATION, LIST_OF_OWNER, &[&ts, &id, end, &limit, &from_ref(owner)]).await
        }
        (None, None) => reader.read(&LIST_OPERATION, LIST, &[&ts, &id, end, &limit]).await,
    }
}

/// The position of the step with this id, if it exists.
///
/// # Errors
/// The pool's.
pub async fn position(pool: &Pool, id: i64) -> Result<Option<StepPosition>, StoreError> {
    let rows = pool.read(&GET, POSITION, &[&from_ref(&id)]).await?;
    rows.first().map(position_of).transpose()
}

/// The position of the step in a row of any of the statements.
///
/// # Errors
/// [`StoreError::Internal`] for other columns.
pub fn position_of(row: &Row) -> Result<StepPosition, StoreError> {
    Ok(StepPosition {
        component: row.try_get("component")?,
        version: row.try_get("version")?,
        ts: row.try_get("ts")?,
        id: row.try_get("id")?,
    })
}

/// The durations of at most `limit` steps after a position, in its order.
///
/// # Errors
/// The pool's.
pub async fn durations(
    reader: &Reader,
    filter: &StepFilter,
    after: &StepPosition,
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let StepFilter { start, end, component, owner } = filter;
    let StepPosition { component: after_component, version, ts, id } = after;
    match component {
        None => {
            reader
                .read(&DURATIONS_OPERATION, DURATIONS, &[after_component, version, ts, id, start, end, owner, &limit])
                .await
        }
        // A position in another component is either before all steps of this one or after them.
        Some(component) if component < after_component => Ok(Vec::new()),
        Some(component) if component > after_component => {
            reader
                .read(
                    &DURATIONS_OPERATION,
                    DURATIONS_OF_COMPONENT,
                    &[component, &"", ts, id, start, end, owner, &limit],
                )
                .await
        }
        Some(component) => {
            reader
                .read(
                    &DURATIONS_OPERATION,
                    DURATIONS_OF_COMPONENT,
                    &[component, version, ts, id, start, end, owner, &limit],
                )
                .await
        }
    }
}

/// The durations of the steps of each status.
///
/// # Errors
/// The pool's.
pub async fn summary(reader: &Reader, filter: &StepFilter) -> Result<Vec<Row>, StoreError> {
    let StepFilter { start, end, component, owner } = filter;
    let bounds = [(start as Param<'_>, Type::TIMESTAMPTZ), (end, Type::TIMESTAMPTZ), (owner, Type::TEXT)];
    match component {
        None => reader.collect(&SUMMARY_OPERATION, Query::Once(Planner::Free, SUMMARY, &bounds)).await,
        Some(component) => {
            let params = [&bounds[..], &[(component, Type::TEXT)]].concat();
            reader.collect(&SUMMARY_OPERATION, Query::Once(Planner::Free, SUMMARY_OF_COMPONENT, &params)).await
        }
    }
}
