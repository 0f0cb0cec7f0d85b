//! The URLs of steps: filters and handlers.
//!
//! A step has no URL of its own and no method changes one: steps are append-only.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{Row as DbRow, Transaction};
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_DISPOSITION, HeaderValue, LINK, VARY};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::context::Context;
use super::export::{self, Row};
use super::model::{self, Duration, Filter, NewStep, Position, Step, Summary};
use super::request::{self, ListRequest, PAGE_MAX};
use super::store;
use crate::db::error::StoreError;
use crate::db::reads::Reader;
use crate::http::body::{self, FORM, JSON};
use crate::http::client::Client;
use crate::http::coding::{Broken, headers_and_body};
use crate::http::format::Format;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply::{self, Chunks};
use crate::http::route::{Allowed, Matched, Route, at_with_query, get_or_head, method_not_allowed};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::Work;
use crate::idempotency::request::Request;

pub(super) const STEPS: &[&str] = &["/v1/steps"];
pub(super) const DURATIONS: &[&str] = &["/v1/steps/durations"];
/// Each template with the methods that it takes.
pub const ALLOWED: Allowed = &[(STEPS, "GET, HEAD, POST"), (DURATIONS, "GET, HEAD")];

/// Rows read at a time: about 150 KiB of CSV, and few enough that a slow reader costs little memory.
const BATCH: i64 = 1000;

/// All routes of steps.
pub fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let limits = &context.body_limits;
    let context = {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    let record =
        at_with_query(STEPS).and(warp::post()).and(headers_and_body(&limits.memory)).and(context.clone()).then(
            |matched: Matched, raw, headers, body, context| async move {
                matched.answer(record(matched.route, raw, headers, body, context)).await
            },
        );
    let list = at_with_query(STEPS).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
        |matched: Matched, raw, headers, context| async move { matched.answer(list(raw, headers, context)).await },
    );
    let durations = at_with_query(DURATIONS).and(get_or_head()).and(warp::header::headers_cloned()).and(context).then(
        |matched: Matched, raw, headers, context| async move { matched.answer(durations(raw, headers, context)).await },
    );
    record.or(list).unify().or(durations).unify().or(method_not_allowed(ALLOWED)).unify().boxed()
}

async fn record(
    route: Route,
    raw: String,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let (media_type, body) = body::read(&headers, body, &context.body_limits, &[JSON, FORM]).await?;
    let new = request::read_step(&raw, media_type, &body)?;
    if let Some(request) = Request::read(&headers, route.0, &raw, &body)? {
        return Box::pin(context.once.run(&request, RecordOnce(new), problem)).await;
    }
    let row = store::record(&context.pool, &new).await.map_err(problem)?;
    let step = store::step(&row).map_err(problem)?;
    let mut response = reply::json(&step);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// A step whose recording may be retried.
struct RecordOnce<'a>(NewStep<'a>);

impl Work for RecordOnce<'_> {
    async fn run(self, transaction: &Transaction<'_>) -> Result<Answer, StoreError> {
        let row = store::record_in(transaction, &self.0).await?;
        let document = serde_json::to_vec(&store::step(&row)?).expect("our types have string keys only");
        Ok(Answer::new(StatusCode::CREATED, JSON, document.into()))
    }
}

async fn list(raw: String, headers: HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let reader = context.reads.of(Client::of(&headers).address());
    let (request, query) = request::read_list(&raw, &headers)?;
    let ListRequest { filter, format, limit, .. } = request;
    // Ids begin at 1, so this is the position right before the first step of the time asked for.
    let first = (filter.start, 0);
    let after =
        position(&context, request.after).await?.map_or(first, |position| first.max((position.ts, position.id)));
    let Some(limit) = limit else {
        let (buffers, client) = (context.buffers.clone(), Client::of(&headers));
        let chunks = Steps { reader, filter, format, after, first: true };
        let response = reply::in_chunks(&buffers, client, format.content_type(), chunks, problem).await?;
        return Ok(described::<Step<'_>>(response, format));
    };
    let mut rows = store::list(&reader, &filter, after, limit + 1).await.map_err(problem)?;
    let more = cut(&mut rows, limit);
    let steps = read_all(&rows, store::step).map_err(problem)?;
    let next = steps.last().filter(|_| more).map(|step| step.id);
    Ok(linked(page(format, &steps), "/v1/steps", &query, next))
}

async fn durations(raw: String, headers: HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let reader = context.reads.of(Client::of(&headers).address());
    let (request, query) = request::read_durations(&raw, &headers)?;
    let ListRequest { filter, format, limit, summary, .. } = request;
    if summary && format == Format::Csv {
        let rows = store::summary(&reader, &filter).await.map_err(problem)?;
        return Ok(page(format, &read_all(&rows, store::aggregates).map_err(problem)?));
    }
    // No text is empty, so this is the position before every step.
    let first = Position { component: String::new(), version: String::new(), ts: filter.start, id: 0 };
    let after = position(&context, request.after).await?.unwrap_or(first);
    // A summary is asked for to be quick, so a page is all that comes with it.
    let Some(limit) = limit.or(summary.then_some(PAGE_MAX)) else {
        let (buffers, client) = (context.buffers.clone(), Client::of(&headers));
        let chunks = Durations { reader, filter, format, after, first: true };
        let response = reply::in_chunks(&buffers, client, format.content_type(), chunks, problem).await?;
        return Ok(described::<Duration<'_>>(response, format));
    };
    let mut rows = store::durations(&reader, &filter, &after, limit + 1).await.map_err(problem)?;
    let more = cut(&mut rows, limit);
    let durations = read_all(&rows, store::duration).map_err(problem)?;
    let next = durations.last().filter(|_| more).map(|duration| duration.id);
    let response = if summary {
        let rows = store::summary(&reader, &filter).await.map_err(problem)?;
        let summary = read_all(&rows, store::aggregates).map_err(problem)?;
        described::<Duration<'_>>(reply::json(&Summarised { summary, durations }), format)
    } else {
        page(format, &durations)
    };
    Ok(linked(response, "/v1/steps/durations", &query, next))
}

/// The durations of a page, after the aggregates of everything that the filters let through.
#[derive(Serialize)]
struct Summarised<'a> {
    summary: Vec<Summary<'a>>,
    durations: Vec<Duration<'a>>,
}

/// Where the step stands behind which a list begins.
async fn position(context: &Context, after: Option<i64>) -> Result<Option<Position>, Problem> {
    let Some(id) = after else { return Ok(None) };
    let position = store::position(&context.pool, id).await.map_err(problem)?;
    position.map(Some).ok_or_else(request::unknown_after)
}

/// Drops the row that was read beyond the limit, if there was one.
fn cut(rows: &mut Vec<DbRow>, limit: i64) -> bool {
    let limit = usize::try_from(limit).expect("a limit is between 1 and 1000");
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

fn read_all<'a, T>(rows: &'a [DbRow], read: fn(&'a DbRow) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(read).collect()
}

fn page<R: Row>(format: Format, rows: &[R]) -> Response {
    let mut body = Vec::new();
    export::begin::<R>(format, &mut body);
    export::rows(format, true, rows, &mut body);
    export::end(format, &mut body);
    described::<R>(reply::ok(format.content_type(), body), format)
}

/// The headers that every list has: caches must tell the formats apart, and browsers keep CSV as a file.
fn described<R: Row>(mut response: Response, format: Format) -> Response {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if format == Format::Csv {
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{}.csv\"", R::NAME));
        headers.insert(CONTENT_DISPOSITION, disposition.expect("names of rows are plain words"));
    }
    response
}

/// Tells where the next page is (RFC 8288).
fn linked(mut response: Response, path: &str, query: &Query<'_>, after: Option<i64>) -> Response {
    if let Some(after) = after {
        let link = format!("<{path}?{}>; rel=\"next\"", query.with("after", &after.to_string()));
        response.headers_mut().insert(LINK, HeaderValue::from_str(&link).expect("a query is percent-encoded"));
    }
    response
}

/// A list of steps under way.
struct Steps {
    reader: Reader,
    filter: Filter,
    format: Format,
    /// The last step written.
    after: (Timestamp, i64),
    first: bool,
}

impl Chunks for Steps {
    async fn next(&mut self, room: usize) -> Result<(Vec<u8>, bool), StoreError> {
        let rows = store::list(&self.reader, &self.filter, self.after, BATCH).await?;
        self.reader.wait_midway();
        let steps = read_all(&rows, store::step)?;
        if let Some(last) = steps.last() {
            self.after = (last.ts, last.id);
        }
        Ok(write_batch(self.format, &mut self.first, &steps, room))
    }
}

/// A list of durations under way.
struct Durations {
    reader: Reader,
    filter: Filter,
    format: Format,
    /// The last step written.
    after: Position,
    first: bool,
}

impl Chunks for Durations {
    async fn next(&mut self, room: usize) -> Result<(Vec<u8>, bool), StoreError> {
        let rows = store::durations(&self.reader, &self.filter, &self.after, BATCH).await?;
        self.reader.wait_midway();
        let durations = read_all(&rows, store::duration)?;
        if let Some(last) = durations.last() {
            self.after = Position {
                component: last.component.to_owned(),
                version: last.version.to_owned(),
                ts: last.start,
                id: last.id,
            };
        }
        Ok(write_batch(self.format, &mut self.first, &durations, room))
    }
}

/// A batch of a list under way, with the list's beginning or end where it is due, and whether there may be more.
fn write_batch<R: Row>(format: Format, first: &mut bool, batch: &[R], room: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(room);
    if *first {
        export::begin::<R>(format, &mut out);
    }
    export::rows(format, *first, batch, &mut out);
    *first = false;
    let more = i64::try_from(batch.len()).is_ok_and(|count| count == BATCH);
    if !more {
        export::end(format, &mut out);
    }
    (out, more)
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn problem(error: StoreError) -> Problem {
    Problem::from_store(&error, "no such step; GET /v1/steps lists those that exist", model::constraint_field)
}
