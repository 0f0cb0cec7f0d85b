//! The URLs of air quality: one filter, one handler.

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use warp::reply::Response;

use super::cache::{self, AnswerError, Cache};
use super::model::{Selection, check_entities, check_from, check_to};
use super::store::READINGS_MAX;
use crate::auth::scope::{Access, Action};
use crate::http::client::Client;
use crate::http::endpoint::Endpoint;
use crate::http::format::Format;
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::route::{Matched, at_with_query, get_or_head, method_not_allowed};

pub(super) const LIST: &[&str] = &["/v1/air-quality", "/air_quality", "/api/v1/measures/air"];
/// The endpoints of air quality.
pub const ENDPOINTS: &[Endpoint] =
    &[Endpoint { templates: LIST, methods: &[("GET", Access::Scope("air-quality", Action::Read))] }];

const PARAMETERS: &[&str] = &["entity", "from", "to", "format"];
const ENTITIES_RULE: &str = "must be the names of 1 to 50 stations, separated by commas, such as aq_jaen,aq_uam; \
     a name is 1 to 100 letters, digits, blanks and _ . : -";
const FORMAT_RULE: &str = "must be json or csv";

/// The formats offered; the first is the default.
const OFFERED: &[Format] = &[Format::Json, Format::Csv];

/// Whether the response came from the cache: `HIT` or `MISS`.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Other caches may store the response but must revalidate it each time: an import must be visible at once, and only our cache
/// is notified of it.
const PUBLIC_NO_CACHE: HeaderValue = HeaderValue::from_static("public, no-cache");

/// The same for restricted responses, which no shared cache may store (RFC 9111, section 3.5).
const PRIVATE_NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// All routes of air quality.
pub fn routes(cache: &Arc<Cache>) -> BoxedFilter<(Response,)> {
    let cache = cache.clone();
    at_with_query(LIST)
        .and(get_or_head())
        .and(warp::header::headers_cloned())
        .then(move |matched: Matched, query: String, headers| {
            let cache = cache.clone();
            async move { matched.answer(list(&query, headers, matched.is_guarded(), &cache)).await }
        })
        .or(method_not_allowed(ENDPOINTS))
        .unify()
        .boxed()
}

async fn list(query: &str, headers: HeaderMap, is_guarded: bool, cache: &Arc<Cache>) -> Result<Response, Problem> {
    let selection = selection(query, &headers)?;
    let format = selection.format;
    let served = cache.answer(selection, Client::of(&headers).address()).await.map_err(|error| problem(&error))?;
    let mut response = Response::new(cache::body(&served, format).into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(CACHE_CONTROL, if is_guarded { PRIVATE_NO_CACHE } else { PUBLIC_NO_CACHE });
    headers.insert(AGE, HeaderValue::from(served.entry.age().as_secs()));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(X_CACHE, HeaderValue::from_static(if served.cached { "HIT" } else { "MISS" }));
    Ok(response)
}

/// Parses the query; `format` overrides the header `Accept`, which a browser's address bar cannot set.
fn selection(text: &str, headers: &HeaderMap) -> Result<Selection, Problem> {
    let mut query = Query::parse(text, PARAMETERS);
    let entities = query.optional("entity", ENTITIES_RULE, check_entities).unwrap_or_default();
    let from = query.checked("from", check_from).flatten();
    let to = query.checked("to", check_to).flatten();
    let format =
        query.optional("format", FORMAT_RULE, |text| Format::from_name(text).filter(|format| OFFERED.contains(format)));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        query.fault("to", "must be later than from; readings at from are included, those at to are not");
    }
    query.finish()?;
    let format = match format {
        Some(format) => format,
        None => Format::negotiate(headers, OFFERED)?,
    };
    Ok(Selection { format, entities, from, to })
}

fn problem(error: &AnswerError) -> Problem {
    match error {
        AnswerError::Store(error) => Problem::from_store(error, "there are no readings", |_| None),
        AnswerError::TooMany => Problem::new(
            Code::InvalidQuery,
            format!("more than {READINGS_MAX} readings match; restrict them with entity, from and to"),
        ),
        // `Abandoned` is never sent, because no request waits.
        AnswerError::Defect | AnswerError::Abandoned => Problem::internal(),
    }
}
