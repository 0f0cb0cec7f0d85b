//! The URLs of passengers: filters and handlers.
//!
//! The short and the canonical URL of an operation share one handler. No body is read before path and method fit.

use std::sync::Arc;

use bytes::Buf;
use futures_util::{FutureExt, Stream};
use tokio_postgres::Transaction;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{HeaderValue, LOCATION};
use warp::http::{HeaderMap, HeaderName, StatusCode};
use warp::reply::Response;

use super::bulk::{self, routes::Posted};
use super::context::Context;
use super::json::{self, UuidRule};
use super::list::read::Sources;
use super::list::routes::{PAGE_DEFAULT, list, statistics};
use super::model::Details;
use super::problem::problem;
use super::rows::Stored;
use super::store;
use crate::db::error::StoreError;
use crate::http::body::{self, JSON, MERGE_PATCH, read_json};
use crate::http::client::Client;
use crate::http::etag::{self, ReadCondition};
use crate::http::problem::{Code, Problem};
use crate::http::reply;
use crate::http::route::{Allowed, Matched, Route, at, at_except, at_with_query, get_or_head, method_not_allowed};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::Work;
use crate::idempotency::request::Request;

pub(super) const LIST: &[&str] = &["/v1/passengers", "/passengerlist"];
pub(super) const STATISTICS: &[&str] = &["/v1/passengers/stats"];
pub(super) const CREATE: &[&str] = &["/v1/passengers", "/postpassenger"];
pub(super) const GET: &[&str] = &["/v1/passengers/{uuid}", "/getpassenger/{uuid}"];
pub(super) const REPLACE: &[&str] = &["/v1/passengers/{uuid}", "/putpassenger/{uuid}"];
pub(super) const PATCH: &[&str] = &["/v1/passengers/{uuid}"];
pub(super) const DELETE: &[&str] = &["/v1/passengers/{uuid}", "/deletepassenger/{uuid}"];

/// Each template with the methods that it takes.
pub const ALLOWED: Allowed = &[
    (&["/v1/passengers"], "GET, HEAD, POST"),
    (STATISTICS, "GET, HEAD"),
    (&["/v1/passengers/{uuid}"], "GET, HEAD, PUT, PATCH, DELETE"),
    (&["/passengerlist", "/getpassenger/{uuid}"], "GET, HEAD"),
    (&["/postpassenger"], "POST"),
    (&["/putpassenger/{uuid}"], "PUT"),
    (&["/deletepassenger/{uuid}"], "DELETE"),
];

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// All routes of passengers; the hottest stand first, because alternatives are tried in order.
pub fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let context = {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    // The handlers' futures are boxed: warp moves whatever a route returns through every alternative around it.
    let get =
        at_except(GET, STATISTICS).and(get_or_head()).and(etag::unconditional()).and(context.clone()).then(
            |matched: Matched, context| async move { matched.answer(get(&matched.segment, context)).await }.boxed(),
        );
    let get_if =
        at_except(GET, STATISTICS).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
            |matched: Matched, headers: HeaderMap, context| {
                async move { matched.answer(get_if(&matched.segment, &headers, context)).await }.boxed()
            },
        );
    let list = at_with_query(LIST).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
        |matched: Matched, raw, headers: HeaderMap, context: Arc<Context>| {
            let path = matched.route.0;
            // The short URL is the whole list, as it always was.
            let default = (path == LIST[0]).then_some(PAGE_DEFAULT);
            let sources = Sources { reader: context.reads.of(Client::of(&headers).address()), context };
            async move { matched.answer(list(path, default, raw, headers, sources)).await }.boxed()
        },
    );
    let statistics =
        at_with_query(STATISTICS).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
            |matched: Matched, raw, headers: HeaderMap, context: Arc<Context>| {
                let reader = context.reads.of(Client::of(&headers).address());
                async move { matched.answer(statistics(raw, reader)).await }.boxed()
            },
        );
    let create = at(CREATE)
        .and(warp::post())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(context.clone())
        .then(|matched: Matched, headers, body, context| {
            async move { matched.answer(create(matched.route, headers, body, context)).await }.boxed()
        });
    let replace = at_except(REPLACE, STATISTICS)
        .and(warp::put())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(context.clone())
        .then(|matched: Matched, headers, body, context| {
            async move { matched.answer(replace(&matched.segment, headers, body, context)).await }.boxed()
        });
    let patch = at_except(PATCH, STATISTICS)
        .and(warp::patch())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .and(context.clone())
        .then(|matched: Matched, headers, body, context| {
            async move { matched.answer(patch(&matched.segment, headers, body, context)).await }.boxed()
        });
    let delete =
        at_except(DELETE, STATISTICS).and(warp::delete()).and(warp::header::headers_cloned()).and(context).then(
            |matched: Matched, headers: HeaderMap, context| {
                async move { matched.answer(delete(&matched.segment, &headers, context)).await }.boxed()
            },
        );
    // In boxes, because what is copied for every request is as large as all alternatives that are not in one.
    let rare = replace
        .or(patch)
        .unify()
        .or(delete)
        .unify()
        .or(get_if)
        .unify()
        .or(list)
        .unify()
        .or(statistics)
        .unify()
        .or(method_not_allowed(ALLOWED))
        .unify()
        .boxed();
    get.or(create.or(rare).unify().boxed()).unify().boxed()
}

async fn get(segment: &str, context: Arc<Context>) -> Result<Response, Problem> {
    let uuid = parse_uuid(segment)?;
    let stored = context.store.get(uuid).await.map_err(problem)?;
    Ok(shown(StatusCode::OK, stored))
}

/// The same for a client that has an earlier answer or wants a certain version.
async fn get_if(segment: &str, headers: &HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let uuid = parse_uuid(segment)?;
    let condition = ReadCondition::read(headers)?;
    let stored = context.store.get(uuid).await.map_err(problem)?;
    Ok(condition.instead(stored.version)?.unwrap_or_else(|| shown(StatusCode::OK, stored)))
}

async fn create(
    route: Route,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let body = match bulk::routes::receive(route, &headers, body, &context).await? {
        Posted::One(body) => body,
        Posted::Many(response) => return Ok(response),
    };
    let details = json::read(&body, UuidRule::Refused)?;
    if let Some(request) = Request::read(&headers, route.0, "", &body)? {
        // Boxed, because it is large and rare.
        return Box::pin(context.once.run(&request, CreateOnce(details))).await;
    }
    let (uuid, stored) = context.store.create(details).await.map_err(problem)?;
    let mut response = shown(StatusCode::CREATED, stored);
    let location = HeaderValue::from_str(&location(uuid)).expect("a uuid is printable ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// A creation that may be retried.
struct CreateOnce<'a>(Details<'a>);

impl Work for CreateOnce<'_> {
    async fn run(self, transaction: &Transaction<'_>) -> Result<Answer, StoreError> {
        let (uuid, stored) = store::create_in(transaction, self.0).await?;
        let answer = Answer::new(StatusCode::CREATED, JSON, stored.document);
        Ok(Answer { location: Some(location(uuid)), etag: Some(etag::text(stored.version)), ..answer })
    }

    fn problem(error: StoreError) -> Problem {
        problem(error)
    }
}

fn location(uuid: Uuid) -> String {
    format!("/v1/passengers/{uuid}")
}

async fn replace(
    segment: &str,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let uuid = parse_uuid(segment)?;
    let condition = etag::condition(&headers, context.if_match)?;
    let body = read_json(&headers, body, &context.body_limits).await?;
    let details = json::read(&body, UuidRule::Equals(uuid))?;
    let stored = context.store.replace(uuid, details, condition).await.map_err(problem)?;
    Ok(shown(StatusCode::OK, stored))
}

async fn patch(
    segment: &str,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let uuid = parse_uuid(segment)?;
    let condition = etag::condition(&headers, context.if_match)?;
    let (_, body) = body::read(&headers, body, &context.body_limits, &[MERGE_PATCH]).await.map_err(|problem| {
        // RFC 5789, section 2.2: the refusal says what is taken.
        if problem.is(Code::UnsupportedMediaType) { problem.with_header(ACCEPT_PATCH, MERGE_PATCH) } else { problem }
    })?;
    let patch = json::read_patch(&body, UuidRule::Equals(uuid))?;
    let stored = context.store.patch(uuid, patch, condition).await.map_err(problem)?;
    Ok(shown(StatusCode::OK, stored))
}

async fn delete(segment: &str, headers: &HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let uuid = parse_uuid(segment)?;
    let condition = etag::condition(headers, context.if_match)?;
    context.store.delete(uuid, condition).await.map_err(problem)?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A passenger with the tag of its context.
fn shown(status: StatusCode, stored: Stored) -> Response {
    etag::tagged(reply::json_bytes(status, stored.document), stored.version)
}

fn parse_uuid(segment: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(segment).map_err(|_| {
        Problem::new(
            Code::InvalidUuid,
            "the last part of the path must be a uuid such as 0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10; \
             GET /v1/passengers lists those that exist",
        )
    })
}
