//! The token endpoints: filters and handlers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::context::Context;
use super::model::{Made, Shown, read, read_overlap};
use crate::auth::principal::Principal;
use crate::auth::scope::Access;
use crate::auth::tokens::format::ApiToken;
use crate::auth::tokens::store::Listed;
use crate::auth::tokens::{self, store};
use crate::db::error::StoreError;
use crate::http::body::read_json;
use crate::http::coding::{Broken, announced, headers_and_body};
use crate::http::endpoint::Endpoint;
use crate::http::link;
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::reply;
use crate::http::route::{Matched, at, at_with_query, get_or_head, method_not_allowed};
use crate::resource::list::request::{PAGE_DEFAULT, PAGE_MAX};

pub(super) const TOKENS: &[&str] = &["/v1/tokens"];
pub(super) const TOKEN: &[&str] = &["/v1/tokens/{id}"];
pub(super) const ROTATE: &[&str] = &["/v1/tokens/{id}/rotate"];

/// The endpoints of this module.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: TOKENS, methods: &[("GET", Access::Admin), ("POST", Access::Admin)] },
    Endpoint { templates: TOKEN, methods: &[("DELETE", Access::Admin)] },
    Endpoint { templates: ROTATE, methods: &[("POST", Access::Admin)] },
];

const AFTER: &str = "must be the id of a token; take it from the header Link of a page, or leave it out";
const MISSING: &str = "no active token has this id; GET /v1/tokens lists them";

/// All routes of tokens.
pub fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let body = headers_and_body(&context.body_limits.memory);
    let context = {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    let list = at_with_query(TOKENS).and(get_or_head()).and(context.clone()).then(
        |matched: Matched, raw: String, context| async move {
            matched.answer(async { guarded(&matched, list(read_page(&raw)?, context)).await }).await
        },
    );
    let create = at(TOKENS).and(warp::post()).and(body.clone()).and(context.clone()).then(
        |matched: Matched, headers, body, context| async move {
            let principal = matched.principal().clone();
            matched.answer(guarded(&matched, create(principal, headers, body, context))).await
        },
    );
    let revoke = at(TOKEN).and(warp::delete()).and(context.clone()).then(|matched: Matched, context| async move {
        let principal = matched.principal().clone();
        matched.answer(guarded(&matched, revoke(principal, &matched.segment, context))).await
    });
    let rotate = at(ROTATE).and(warp::post()).and(body).and(context).then(
        |matched: Matched, headers, body, context| async move {
            let principal = matched.principal().clone();
            let rotated = rotate(principal, &matched.segment, headers, body, context);
            matched.answer(guarded(&matched, rotated)).await
        },
    );
    list.or(create).unify().or(revoke).unify().or(rotate).unify().or(method_not_allowed(ENDPOINTS)).unify().boxed()
}

/// While credentials are not checked, tokens cannot be created: they would become valid once credentials are checked.
async fn guarded(
    matched: &Matched,
    work: impl Future<Output = Result<Response, Problem>>,
) -> Result<Response, Problem> {
    if matched.principal().name.is_none() {
        return Err(Problem::new(
            Code::NotFound,
            "tokens can be created over HTTP only with AUTH=on; the operator creates them with `pycrudapi token \
             create`",
        ));
    }
    work.await
}

/// A page of the list.
struct Page<'a> {
    query: Query<'a>,
    limit: usize,
    after: Uuid,
}

fn read_page(raw: &str) -> Result<Page<'_>, Problem> {
    let mut query = Query::parse(raw, &["limit", "after"]);
    let limit = query.optional("limit", "must be a whole number between 1 and 1000", |text| {
        text.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit))
    });
    let after = query.optional("after", AFTER, |text| text.parse().ok());
    query.finish()?;
    Ok(Page { query, limit: limit.unwrap_or(PAGE_DEFAULT), after: after.unwrap_or(Uuid::nil()) })
}

async fn list(page: Page<'_>, context: Arc<Context>) -> Result<Response, Problem> {
    let Page { query, limit, after } = page;
    // One extra token shows whether there are more.
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut tokens = on_connection(&context, Aim::Read, async |client| store::page(client, after, most).await).await?;
    let more = tokens.len() > limit;
    tokens.truncate(limit);
    let next = tokens.last().filter(|_| more).map(|last| (query.with("after", &last.id.to_string()), "next"));
    let response = uncached(reply::json(&tokens.into_iter().map(Shown::of).collect::<Vec<_>>()));
    link::with_links(response, TOKENS[0], next)
}

async fn create(
    principal: Arc<Principal>,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let body = read_json(&headers, body, &context.body_limits).await?;
    let wanted = read(&body, &context.resources)?;
    let by = principal.name.as_deref();
    let (token, listed) =
        on_connection(&context, Aim::Change, async |client| tokens::create(client, &wanted, by).await).await?;
    Ok(made(&token, listed))
}

async fn revoke(principal: Arc<Principal>, segment: &str, context: Arc<Context>) -> Result<Response, Problem> {
    let id = id(segment)?;
    let by = principal.name.as_deref();
    on_connection(&context, Aim::Change, async |client| store::revoke(client, id, by).await)
        .await?
        .ok_or_else(missing)?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn rotate(
    principal: Arc<Principal>,
    segment: &str,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let id = id(segment)?;
    let overlap = match announced(&headers) {
        Some(0) => Duration::ZERO,
        _ => read_overlap(&read_json(&headers, body, &context.body_limits).await?)?,
    };
    let by = principal.name.as_deref();
    let rotated =
        on_connection(&context, Aim::Change, async |client| tokens::rotate(client, id, overlap, by).await).await?;
    let (token, listed) = rotated.ok_or_else(missing)?;
    Ok(made(&token, listed))
}

/// Whether the work changes something if its outcome is unknown.
#[derive(PartialEq, Eq)]
enum Aim {
    Read,
    Change,
}

/// Runs work on a connection of the pool, within its deadline.
async fn on_connection<T>(
    context: &Context,
    aim: Aim,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, StoreError>,
) -> Result<T, Problem> {
    let mut session = context.pool.session().await.map_err(problem)?;
    let (deadline, attempt) = (session.deadline(), session.attempt());
    if aim == Aim::Change {
        attempt.sending();
    }
    let mut timed = store::MANAGE.begin();
    let outcome = timed.around(timeout(deadline, work(session.client_mut()))).await;
    let outcome = attempt.classify(session.finish(outcome));
    timed.record_outcome(&outcome);
    outcome.map_err(problem)
}

fn id(segment: &str) -> Result<Uuid, Problem> {
    segment.parse().map_err(|_| {
        Problem::new(Code::InvalidUuid, "the id of a token is a UUID; GET /v1/tokens lists the existing ones")
    })
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, MISSING)
}

/// The response with a new token; it must not be cached.
fn made(token: &ApiToken, listed: Listed) -> Response {
    let location = HeaderValue::from_str(&format!("{}/{}", TOKENS[0], listed.id)).expect("a uuid is printable ASCII");
    let mut response = uncached(reply::json(&Made::of(token.reveal(), listed)));
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(LOCATION, location);
    response
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn problem(error: StoreError) -> Problem {
    let problem = Problem::from_store(&error, MISSING, |_| None);
    if problem.is(Code::OutcomeUnknown) {
        // No response is stored for a key here, so resending the request would not return the outcome.
        return Problem::new(
            Code::OutcomeUnknown,
            "the database did not confirm the change; check with GET /v1/tokens, and revoke a token that was created \
             without a response",
        );
    }
    problem
}
