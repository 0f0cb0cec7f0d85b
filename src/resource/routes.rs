//! The URLs of a resource: filters and handlers.
//!
//! The short and the canonical URL of an operation share one handler. A body is read only after path and method have matched.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, Stream};
use indexmap::IndexMap;
use tokio_postgres::Transaction;
use uuid::Uuid;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{HeaderValue, LOCATION};
use warp::http::{HeaderMap, HeaderName, StatusCode};
use warp::reply::Response;

use super::actor::Actor;
use super::bulk::{self, routes::Posted};
use super::context::Context;
use super::definition::{Resource, ResourceUrls};
use super::description::Operation;
use super::history;
use super::json::{self, UuidRule};
use super::list::read::Sources;
use super::list::routes::{PAGE_DEFAULT, list, statistics};
use super::long_rows::may_be_long;
use super::problem::problem;
use super::row::Stored;
use super::single_row::{parse_uuid, row_response};
use super::store;
use super::value::Value;
use crate::auth::scope::{Access, Action};
use crate::csv::notes::{Notes, UnknownColumns};
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::http::body::{self, JSON, MERGE_PATCH, read_json};
use crate::http::coding::{Broken, headers_and_body};
use crate::http::consistency;
use crate::http::endpoint::Endpoint;
use crate::http::etag::{self, ReadCondition};
use crate::http::prefer::{self, unknown};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Matched, at, at_except, at_with_query, get_or_head, method_not_allowed};
use crate::idempotency::answer::Answer;
use crate::idempotency::once::Work;
use crate::idempotency::request::Request;

/// The endpoints of a resource.
pub fn endpoints(resource: &Resource) -> &'static [Endpoint] {
    let urls = &resource.urls;
    let methods: [(Operation, &'static [&'static str], &str, Action); 10] = [
        (Operation::List, urls.list, "GET", Action::Read),
        (Operation::Create, urls.create, "POST", Action::Create),
        (Operation::Bulk, urls.create, "POST", Action::Create),
        (Operation::Statistics, urls.statistics, "GET", Action::Read),
        (Operation::Read, urls.read, "GET", Action::Read),
        (Operation::Replace, urls.replace, "PUT", Action::Update),
        (Operation::Patch, urls.patch, "PATCH", Action::Update),
        (Operation::Delete, urls.delete, "DELETE", Action::Delete),
        (Operation::Read, urls.history, "GET", Action::Read),
        (Operation::Replace, urls.restore, "POST", Action::Update),
    ];
    let mut found: IndexMap<&'static str, IndexMap<&'static str, Access>> = IndexMap::new();
    for (operation, templates, method, action) in methods {
        for template in templates.iter().filter(|_| resource.offers(operation)) {
            found.entry(template).or_default().insert(method, Access::Scope(resource.name, action));
        }
    }
    let endpoints = found.into_iter().map(|(template, methods)| Endpoint {
        templates: vec![template].leak(),
        methods: methods.into_iter().collect::<Vec<_>>().leak(),
    });
    endpoints.collect::<Vec<_>>().leak()
}

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// The media types of a merge patch; many clients send only `application/json`.
const PATCHES: &[&str] = &[MERGE_PATCH, JSON];
const ACCEPTED_PATCHES: &str = "application/merge-patch+json, application/json";

/// All routes of a resource; the most frequent come first, because alternatives are tried in order.
pub fn routes(context: &Arc<Context>) -> BoxedFilter<(Response,)> {
    let resource = context.resource;
    let ResourceUrls {
        list: lists,
        statistics: stats,
        create: creations,
        read,
        replace: replaced,
        patch: patched,
        delete: deleted,
        history,
        restore,
    } = resource.urls;
    let body = headers_and_body(&context.body_limits.memory);
    let context = {
        let context = context.clone();
        warp::any().map(move || context.clone())
    };
    // Without headers, which cost more than a short row. A long one is charged to its client.
    let read_short = if may_be_long(resource) { &[] } else { read };
    // The handlers' futures are boxed because warp moves a route's return value through every enclosing alternative.
    let get = at_except(read_short, stats).and(get_or_head()).and(etag::unconditional()).and(context.clone()).then(
        move |mut matched: Matched, context| match past_query(resource, &mut matched) {
            None => async move { matched.answer(get(&matched.segment, context)).await }.boxed(),
            past => {
                async move { matched.answer(get_if(&matched.segment, past, &HeaderMap::new(), context)).await }.boxed()
            }
        },
    );
    let get_if =
        at_except(read, stats).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
            move |mut matched: Matched, headers: HeaderMap, context| {
                let past = past_query(resource, &mut matched);
                async move { matched.answer(get_if(&matched.segment, past, &headers, context)).await }.boxed()
            },
        );
    let list = at_with_query(lists).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
        |matched: Matched, raw, headers: HeaderMap, context: Arc<Context>| {
            let path = matched.route.0;
            // The short URL returns the whole list, for compatibility.
            let default = (path == lists[0]).then_some(PAGE_DEFAULT);
            let answer = async move {
                let sources = Sources { reader: consistency::reader(&context.reads, &headers)?, context };
                list(path, default, raw, headers, sources).await
            };
            async move { matched.answer(answer).await }.boxed()
        },
    );
    let statistics =
        at_with_query(stats).and(get_or_head()).and(warp::header::headers_cloned()).and(context.clone()).then(
            move |matched: Matched, raw, headers: HeaderMap, context: Arc<Context>| {
                let answer = async move {
                    let reader = consistency::reader(&context.reads, &headers)?;
                    statistics(resource, raw, reader).await
                };
                async move { matched.answer(answer).await }.boxed()
            },
        );
    let create = at(creations).and(warp::post()).and(body.clone()).and(context.clone()).then(
        |matched: Matched, headers, body, context| {
            async move { matched.answer(create(&matched, headers, body, context)).await }.boxed()
        },
    );
    let replace = at_except(replaced, stats).and(warp::put()).and(body.clone()).and(context.clone()).then(
        |matched: Matched, headers, body, context| {
            async move { matched.answer(replace(&matched, headers, body, context)).await }.boxed()
        },
    );
    let patch = at_except(patched, stats).and(warp::patch()).and(body.clone()).and(context.clone()).then(
        |matched: Matched, headers, body, context| {
            async move { matched.answer(patch(&matched, headers, body, context)).await }.boxed()
        },
    );
    let delete =
        at_except(deleted, stats).and(warp::delete()).and(warp::header::headers_cloned()).and(context.clone()).then(
            |matched: Matched, headers: HeaderMap, context| {
                async move { matched.answer(delete(&matched, &headers, context)).await }.boxed()
            },
        );
    let history = at_with_query(history)
        .and(get_or_head())
        .and(warp::header::headers_cloned())
        .and(context.clone())
        .then(|matched: Matched, raw: String, headers: HeaderMap, context: Arc<Context>| {
            async move { matched.answer(history::routes::history(&matched.segment, &raw, &headers, &context)).await }
                .boxed()
        });
    let restore = at(restore).and(warp::post()).and(body).and(context).then(
        |matched: Matched, headers, body, context: Arc<Context>| {
            async move {
                let asked = (matched.segment.as_str(), matched.principal().as_ref());
                matched.answer(history::routes::restore(asked, headers, body, &context)).await
            }
            .boxed()
        },
    );
    // Boxed, because otherwise every request copies a filter as large as all alternatives together.
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
        .or(history)
        .unify()
        .or(restore)
        .unify()
        .or(method_not_allowed(endpoints(resource)))
        .unify()
        .boxed();
    get.or(create.or(rare).unify().boxed()).unify().boxed()
}

async fn get(segment: &str, context: Arc<Context>) -> Result<Response, Problem> {
    let uuid = parse_uuid(context.resource, segment)?;
    Ok(row_response(StatusCode::OK, current(uuid, &context).await?))
}

/// The row as it is now.
async fn current(uuid: Uuid, context: &Context) -> Result<Stored, Problem> {
    context.store.get(uuid).await.map_err(|error| problem(context.resource, error))
}

/// The query string, if the resource has a history and the request may select a past state.
fn past_query(resource: &Resource, matched: &mut Matched) -> Option<String> {
    resource.sql.history.as_ref().and_then(|_| matched.take_query())
}

/// Handles a conditional read, or a read of a past state.
async fn get_if(
    segment: &str,
    past: Option<String>,
    headers: &HeaderMap,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let uuid = parse_uuid(context.resource, segment)?;
    let condition = ReadCondition::read(headers)?;
    let stored = match past {
        None => context.rows.read(headers, || current(uuid, &context)).await?,
        Some(raw) => context.rows.read(headers, || history::routes::past_state(uuid, &raw, &context)).await?,
    };
    Ok(condition.instead(stored.version)?.unwrap_or_else(|| row_response(StatusCode::OK, stored)))
}

async fn create(
    matched: &Matched,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let (route, principal) = (matched.route, &**matched.principal());
    let body = if context.resource.offers(Operation::Bulk) {
        match bulk::routes::receive(route, (&headers, principal), body, &context).await? {
            Posted::One(body) => body,
            Posted::Many(response) => return Ok(response),
        }
    } else {
        read_json(&headers, body, &context.body_limits).await?
    };
    let mut left_out = Notes::default();
    let (values, is_lenient) = match json::read(context.resource, &body, UuidRule::Refused, None) {
        Ok(values) => (values, false),
        // The preference is read only after a rejection, so other requests pay nothing for it.
        Err(problem) => match unknown(&headers) {
            UnknownColumns::Refused => return Err(problem),
            UnknownColumns::Ignored => {
                (json::read(context.resource, &body, UuidRule::Refused, Some(&mut left_out))?, true)
            }
        },
    };
    let applied = move |mut response: Response| {
        if is_lenient {
            prefer::applied(response.headers_mut(), prefer::LENIENT);
            prefer::add_notes(response.headers_mut(), &left_out.sentences(None));
        }
        response
    };
    let _held = context.rows.reserve_change(&headers, body.len(), true).await?;
    if let Some(request) = Request::read((&headers, principal), route.0, "", &body)? {
        // Boxed, because it is large and rare.
        let work = CreateOnce { resource: context.resource, values, changed_by: Actor::of(principal, &headers) };
        let failed = |error| problem(context.resource, error);
        return Box::pin(context.once.run(&request, work, failed)).await.map(applied);
    }
    let created = context.store.create(values, Actor::of(principal, &headers)).await;
    let (uuid, stored) = created.map_err(|error| problem(context.resource, error))?;
    let mut response = row_response(StatusCode::CREATED, context.rows.hold(&headers, stored));
    let location = HeaderValue::from_str(&location(context.resource, uuid)).expect("a uuid is printable ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(applied(response))
}

/// An idempotent creation.
struct CreateOnce<'a> {
    resource: &'static Resource,
    values: Vec<Value<'a>>,
    changed_by: Actor,
}

impl Work for CreateOnce<'_> {
    fn operation(&self) -> &'static DbOperation {
        &self.resource.db.create
    }

    async fn run(self, transaction: &Transaction<'_>) -> Result<Answer, StoreError> {
        let (uuid, stored) = store::create_in(self.resource, transaction, self.values, self.changed_by).await?;
        let answer = Answer::new(StatusCode::CREATED, JSON, stored.document);
        let location = Some(location(self.resource, uuid));
        Ok(Answer { location, etag: Some(etag::text(stored.version)), ..answer })
    }
}

fn location(resource: &Resource, uuid: Uuid) -> String {
    format!("/v1/{}/{uuid}", resource.name)
}

async fn replace(
    matched: &Matched,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let uuid = parse_uuid(context.resource, &matched.segment)?;
    let condition = etag::condition(&headers, context.if_match)?;
    let body = read_json(&headers, body, &context.body_limits).await?;
    let values = json::read(context.resource, &body, UuidRule::Equals(uuid), None)?;
    let _held = context.rows.reserve_change(&headers, body.len(), true).await?;
    let stored = context.store.replace(uuid, values, condition, Actor::of(matched.principal(), &headers)).await;
    let stored = stored.map_err(|error| problem(context.resource, error))?;
    Ok(row_response(StatusCode::OK, context.rows.hold(&headers, stored)))
}

async fn patch(
    matched: &Matched,
    headers: HeaderMap,
    body: impl Stream<Item = Result<Bytes, Broken>>,
    context: Arc<Context>,
) -> Result<Response, Problem> {
    let uuid = parse_uuid(context.resource, &matched.segment)?;
    let condition = etag::condition(&headers, context.if_match)?;
    let (_, body) = body::read(&headers, body, &context.body_limits, PATCHES).await.map_err(|problem| {
        // RFC 5789, section 2.2: the response lists the accepted media types.
        if problem.is(Code::UnsupportedMediaType) {
            problem.with_header(ACCEPT_PATCH, ACCEPTED_PATCHES)
        } else {
            problem
        }
    })?;
    let patch = json::read_patch(context.resource, &body, UuidRule::Equals(uuid))?;
    let _held = context.rows.reserve_change(&headers, body.len(), false).await?;
    let stored = context.store.patch(uuid, patch, condition, Actor::of(matched.principal(), &headers)).await;
    let stored = stored.map_err(|error| problem(context.resource, error))?;
    Ok(row_response(StatusCode::OK, context.rows.hold(&headers, stored)))
}

async fn delete(matched: &Matched, headers: &HeaderMap, context: Arc<Context>) -> Result<Response, Problem> {
    let uuid = parse_uuid(context.resource, &matched.segment)?;
    let condition = etag::condition(headers, context.if_match)?;
    let deleted = context.store.delete(uuid, condition, Actor::of(matched.principal(), headers)).await;
    deleted.map_err(|error| problem(context.resource, error))?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
