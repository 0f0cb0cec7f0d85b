//! The URLs of steps: filters and handlers.
//!
//! A step has no URL of its own, and no method changes one: steps are append-only.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio_postgres::{Row, Transaction};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_DISPOSITION, HeaderValue, VARY};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::context::Context;
use super::listing::{DURATIONS, Listing, STEPS, SUMMARY};
use super::model::{self, StepFilter, StepPosition};
use super::request::{self, ListRequest, PAGE_MAX};
use super::store;
use crate::auth::principal::Principal;
use crate::auth::scope::{Access, Action};
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::reads::Reader;
use crate::http::body::{self, FORM, JSON};
use crate::http::budget::Reservation;
use crate::http::client::Client;
use crate::http::coding::{Broken, headers_and_body};
use crate::http::consistency;
use crate::http::endpoint::Endpoint;
use crate::http::format::Format;
use crate::http::link;
use crate::http::problem::Problem;
use crate::http::reply::{self, Chunks};
use crate::http::route::{Matched, Route, at_with_query, get_or_head, method_not_allowed};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::Work;
use crate::idempotency::request::Request;
use crate::resource::row;
use crate::resource::value::Value;

pub(super) const STEPS_URLS: &[&str] = &["/v1/steps"];
pub(super) const DURATIONS_URLS: &[&str] = &["/v1/steps/durations"];
const READ: (&str, Access) = ("GET", Access::Scope("steps", Action::Read));
const CREATE: (&str, Access) = ("POST", Access::Scope("steps", Action::Create));
/// The endpoints of steps.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: STEPS_URLS, methods: &[READ, CREATE] },
    Endpoint { templates: DURATIONS_URLS, methods: &[READ] },
];

/// Rows per batch: about 150 KiB of CSV, and few enough that a slow client costs little memory.
const BATCH: i64 = 1000;

/// All routes of steps.
pub fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let limits = &context.body_limits;
    let context = {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    let record =
        at_with_query(STEPS_URLS).and(warp::post()).and(headers_and_body(&limits.memory)).and(context.clone()).then(
            |matched: Matched, raw, headers, body, context| async move {
                let principal = matched.principal().clone();
                matched.answer(record(matched.route, raw, (headers, principal), body, context)).await
            },
        );
    let list_at = |urls, what| {
        at_with_query(urls).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
            move |matched: Matched, raw, headers, context| async move {
                matched.answer(list(what, raw, headers, context)).await
            },
        )
    };
    let (list, durations) = (list_at(STEPS_URLS, List::Steps), list_at(DURATIONS_URLS, List::Durations));
    record.or(list).unify().or(durations).unify().or(method_not_allowed(ENDPOINTS)).unify().boxed()
}

async fn record(
    route: Route,
    raw: String,
    (headers, principal): (HeaderMap, Arc<Principal>),
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let (media_type, body) = body::read(&headers, body, &context.body_limits, &[JSON, FORM]).await?;
    let new = request::read_step(&raw, media_type, &body)?;
    if let Some(request) = Request::read((&headers, &principal), route.0, &raw, &body)? {
        return Box::pin(context.once.run(&request, RecordOnce(new), problem)).await;
    }
    let row = store::record(&context.pool, &new).await.map_err(problem)?;
    Ok(reply::json_bytes(StatusCode::CREATED, document(&row).map_err(problem)?))
}

fn document(step: &Row) -> Result<Vec<u8>, StoreError> {
    let mut document = Vec::new();
    row::write_row(&STEPS.columns, step, &mut document)?;
    Ok(document)
}

/// An idempotent recording of a step.
struct RecordOnce<'a>(Vec<Value<'a>>);

impl Work for RecordOnce<'_> {
    fn operation(&self) -> &'static DbOperation {
        &store::CREATE
    }

    async fn run(self, transaction: &Transaction<'_>) -> Result<Answer, StoreError> {
        let row = store::record_in(transaction, &self.0).await?;
        Ok(Answer::new(StatusCode::CREATED, JSON, document(&row)?.into()))
    }
}

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Steps,
    Durations,
}

impl List {
    fn listing(self) -> &'static Listing {
        if self == Self::Steps { &STEPS } else { &DURATIONS }
    }

    async fn rows(
        self,
        reader: &Reader,
        filter: &StepFilter,
        after: &StepPosition,
        limit: i64,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Steps => store::list(reader, filter, after, limit).await,
            Self::Durations => store::durations(reader, filter, after, limit).await,
        }
    }
}

async fn list(list: List, raw: String, headers: HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let (client, listing) = (Client::of(&headers), list.listing());
    let reader = consistency::reader(&context.reads, &headers)?;
    let (request, query) = match list {
        List::Steps => request::read_steps(&raw, &headers)?,
        List::Durations => request::read_durations(&raw, &headers)?,
    };
    let ListRequest { filter, format, limit, summary, .. } = request;
    if summary && format == Format::Csv {
        let rows = store::summary(&reader, &filter).await.map_err(problem)?;
        return page(&SUMMARY, format, &rows).map_err(problem);
    }
    if request.after.is_some() {
        // An id does not contain the position of the page before.
        reader.raise(reader.current_consistency().await);
    }
    let after = position(&context, request.after).await?.unwrap_or(StepPosition::before(filter.start));
    // A summary should be fast, so at most a page comes with it.
    let Some(limit) = limit.or(summary.then_some(PAGE_MAX)) else {
        let rows = StepChunks { list, reader, filter, format, after, first: true };
        let response = reply::in_chunks(&context.buffers, client, format.content_type(), rows, problem).await?;
        return Ok(described(response, listing, format));
    };
    let mut rows = list.rows(&reader, &filter, &after, limit + 1).await.map_err(problem)?;
    let more = cut(&mut rows, limit);
    let next = rows.last().filter(|_| more).map(store::position_of).transpose().map_err(problem)?;
    let response = if summary {
        let statuses = store::summary(&reader, &filter).await.map_err(problem)?;
        let body = summarised(&statuses, &rows).map_err(problem)?;
        described(reply::json_bytes(StatusCode::OK, body), listing, format)
    } else {
        page(listing, format, &rows).map_err(problem)?
    };
    let path = if list == List::Steps { STEPS_URLS[0] } else { DURATIONS_URLS[0] };
    link::with_links(response, path, next.map(|position| (query.with("after", &position.id.to_string()), "next")))
}

/// The aggregates of all steps that match the filter, followed by a page of durations.
fn summarised(statuses: &[Row], durations: &[Row]) -> Result<Vec<u8>, StoreError> {
    let mut body = vec![b'{'];
    SUMMARY.member(statuses, &mut body)?;
    body.push(b',');
    DURATIONS.member(durations, &mut body)?;
    body.push(b'}');
    Ok(body)
}

/// The position of the step after which a list starts.
async fn position(context: &Context, after: Option<i64>) -> Result<Option<StepPosition>, Problem> {
    let Some(id) = after else { return Ok(None) };
    let position = store::position(&context.pool, id).await.map_err(problem)?;
    position.map(Some).ok_or_else(request::unknown_after)
}

/// Drops the row that was read beyond the limit, if there was one.
fn cut(rows: &mut Vec<Row>, limit: i64) -> bool {
    let limit = usize::try_from(limit).expect("a limit is between 1 and 1000");
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

fn page(listing: &Listing, format: Format, rows: &[Row]) -> Result<Response, StoreError> {
    let mut body = Vec::new();
    listing.begin(format, &mut body);
    listing.rows(format, true, rows, &mut body)?;
    Listing::end(format, &mut body);
    Ok(described(reply::ok(format.content_type(), body), listing, format))
}

/// Adds the headers of every list: caches must distinguish the formats, and browsers save CSV as a file.
fn described(mut response: Response, listing: &Listing, format: Format) -> Response {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if format == Format::Csv {
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{}.csv\"", listing.name));
        headers.insert(CONTENT_DISPOSITION, disposition.expect("names of lists are plain words"));
    }
    response
}

/// A list being streamed.
struct StepChunks {
    list: List,
    reader: Reader,
    filter: StepFilter,
    format: Format,
    /// The position of the last row written.
    after: StepPosition,
    first: bool,
}

impl Chunks for StepChunks {
    async fn next(&mut self, room: usize, _held: &Reservation) -> Result<(Vec<u8>, bool), StoreError> {
        let rows = self.list.rows(&self.reader, &self.filter, &self.after, BATCH).await?;
        self.reader.wait_midway();
        if let Some(last) = rows.last() {
            self.after = store::position_of(last)?;
        }
        let listing = self.list.listing();
        let mut out = Vec::with_capacity(room);
        if self.first {
            listing.begin(self.format, &mut out);
        }
        listing.rows(self.format, self.first, &rows, &mut out)?;
        self.first = false;
        let more = i64::try_from(rows.len()).is_ok_and(|count| count == BATCH);
        if !more {
            Listing::end(self.format, &mut out);
        }
        Ok((out, more))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn problem(error: StoreError) -> Problem {
    Problem::from_store(&error, "no such step; GET /v1/steps lists those that exist", model::constraint_field)
}
