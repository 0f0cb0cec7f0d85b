//! URL templates such as `/v1/passengers/{uuid}`: matching them, and labelling responses with them.
//!
//! The short and the canonical URL of an operation are two templates of one handler. The template is attached to the response,
//! so that logs and metrics are labelled with it and never with a raw path.
//!
//! A route declares whether it has parameters: [`at`] refuses any query string, [`at_with_query`] passes it to a handler that
//! parses it with [`super::query::Query`], which refuses unknown parameters. Parameters are therefore never ignored.

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::Either;
use warp::filters::path::FullPath;
use warp::http::header::{CACHE_CONTROL, HeaderName, HeaderValue, LINK, RETRY_AFTER};
use warp::http::uri::PathAndQuery;
use warp::http::{HeaderMap, Method, Uri};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::endpoint::{Endpoint, segment_at};
use super::problem::{Code, Problem};
use super::query::Query;
use super::timing::{self, SERVER_TIMING};
use crate::auth::principal::Principal;
use crate::auth::scope::Access;
use crate::db::wait_time;

/// The default `Cache-Control` of a response that requires a scope: no shared cache may store it, whatever it makes of
/// `Authorization`, and a browser checks each use with the credentials that it has by then.
const RESTRICTED: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The template that a response belongs to, stored in the response's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(pub &'static str);

/// The result of authorization.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated principal.
    pub principal: Arc<Principal>,
    /// The template that was authorized.
    pub template: Option<&'static str>,
    /// The access that it requires.
    pub access: Access,
    /// The remaining quota, if requests are counted.
    pub rate_limit: Option<RateLimit>,
}

/// Stored in the response's extensions if the request had invalid credentials.
#[derive(Debug, Clone, Copy)]
pub struct InvalidCredentials;

/// A principal's request quota (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second.
    pub per_second: u32,
    /// Requests that may be sent now.
    pub remaining: u32,
}

impl RateLimit {
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    const LEFT: HeaderName = HeaderName::from_static("ratelimit");

    /// Adds the headers that state the limit.
    pub fn add_to(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            headers.insert(name, value.try_into().expect("digits are printable"));
        }
    }

    fn headers(self) -> [(HeaderName, String); 2] {
        let Self { per_second, remaining } = self;
        [
            (Self::POLICY, format!("\"principal\";q={per_second};w=1")),
            (Self::LEFT, format!("\"principal\";r={remaining};t=1")),
        ]
    }

    /// The problem for a request over the quota; `seconds` until the next one is allowed.
    pub fn problem(self, seconds: u64) -> Problem {
        let detail = format!(
            "this principal has sent more than {} requests per second; send the next one after Retry-After",
            self.per_second
        );
        let problem = Problem::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, seconds.to_string());
        self.headers().into_iter().fold(problem, |problem, (name, value)| problem.with_header(name, value))
    }
}

/// What is known about a request before routing, stored in its extensions; absent for requests without query and credentials,
/// so that they skip it. Boxed, because warp moves what is matched through every alternative.
#[derive(Debug, Clone)]
pub struct Front(Box<Known>);

#[derive(Debug, Clone)]
struct Known {
    /// The query string; `None` after a handler has taken it.
    query: Option<PathAndQuery>,
    /// The result of authorization; `None` if credentials are not checked.
    caller: Option<Caller>,
}

impl Front {
    /// The data for this target; `None` if it has no query and credentials are not checked.
    pub fn of(uri: &Uri, caller: Option<Caller>) -> Option<Self> {
        let query = uri.query().filter(|query| !query.is_empty()).and(uri.path_and_query()).cloned();
        (query.is_some() || caller.is_some()).then(|| Self(Box::new(Known { query, caller })))
    }
}

/// A request whose path matches a template.
#[derive(Debug)]
pub struct Matched {
    /// The template, for labels.
    pub route: Route,
    /// The operation's canonical template, if another one matched.
    canonical: Option<&'static str>,
    /// The path segment at the placeholder; empty if the template has none.
    pub segment: String,
    /// The data collected before routing, if any.
    front: Option<Front>,
}

/// Matches requests whose path fits one of the templates, each with at most one `{placeholder}`. Of the templates of one
/// operation the canonical one comes first. The operation has no parameters: any is refused.
pub fn at(
    templates: &'static [&'static str],
) -> impl Filter<Extract = (Matched,), Error = Rejection> + Clone + Send + Sync + 'static {
    at_except(templates, &[])
}

/// The same, except for fixed paths that match a placeholder but belong to other routes.
pub fn at_except(
    templates: &'static [&'static str],
    others: &'static [&'static str],
) -> impl Filter<Extract = (Matched,), Error = Rejection> + Clone + Send + Sync + 'static {
    let path = warp::path::full().and_then(move |path: FullPath| {
        let matched = templates.iter().find_map(|template| {
            let segment = segment_at(template, path.as_str()).filter(|_| !others.contains(&path.as_str()))?;
            let canonical = templates.first().copied().filter(|canonical| canonical != template);
            Some(Matched { route: Route(template), canonical, segment: segment.to_owned(), front: None })
        });
        ready(matched.ok_or_else(warp::reject::not_found))
    });
    path.and(warp::ext::optional()).map(|matched, front| Matched { front, ..matched })
}

/// The same for several operations of one handler, such as files: no template is canonical.
pub fn at_each(
    templates: &'static [&'static str],
) -> impl Filter<Extract = (Matched,), Error = Rejection> + Clone + Send + Sync + 'static {
    at(templates).map(|matched: Matched| Matched { canonical: None, ..matched })
}

/// The same for an operation with parameters: the handler gets the query string, which may be empty, and parses it with
/// [`super::query::Query`].
pub fn at_with_query(
    templates: &'static [&'static str],
) -> impl Filter<Extract = (Matched, String), Error = Rejection> + Clone + Send + Sync + 'static {
    at(templates)
        .map(|mut matched: Matched| {
            let raw = matched.take_query().unwrap_or_default();
            (matched, raw)
        })
        .untuple_one()
}

/// Matches GET and HEAD; hyper omits the body of a response to HEAD.
pub fn get_or_head() -> impl Filter<Extract = (), Error = Rejection> + Copy + Send + Sync + 'static {
    warp::method()
        .and_then(|method: Method| {
            let fits = method == Method::GET || method == Method::HEAD;
            ready(if fits { Ok(()) } else { Err(warp::reject::not_found()) })
        })
        .untuple_one()
}

impl Matched {
    /// Runs a handler and labels its response or problem with its route and the elapsed time. A response at an operation's
    /// short URL links the canonical one (RFC 6596). If the request has parameters that the handler has not taken, the handler
    /// does not run.
    ///
    /// A handler that panics results in a 500 and affects no other request; the panic hook has logged it. Not an `async fn`:
    /// each would hold the handler's future twice, as argument and while it is awaited.
    pub fn answer(&self, work: impl Future<Output = Result<Response, Problem>>) -> impl Future<Output = Response> {
        let begun = Instant::now();
        let work = match self.refused() {
            None => Either::Left(AssertUnwindSafe(work).catch_unwind()),
            Some(problem) => Either::Right(ready(Ok(Err(problem)))),
        };
        wait_time::counted(work).map(move |(outcome, waited)| {
            let outcome = outcome.unwrap_or_else(|_| Err(Problem::internal()));
            let mut response = outcome.unwrap_or_else(Problem::into_response);
            response.headers_mut().insert(SERVER_TIMING, timing::value(begun.elapsed(), waited));
            response.extensions_mut().insert(self.route);
            if let Some(caller) = self.caller() {
                if let Some(limit) = caller.rate_limit {
                    limit.add_to(response.headers_mut());
                }
                if caller.access != Access::Public {
                    response.headers_mut().entry(CACHE_CONTROL).or_insert(RESTRICTED);
                }
                response.extensions_mut().insert(caller.clone());
            }
            if let Some(canonical) = self.canonical {
                let prefix = canonical.bytes().position(|byte| byte == b'{').map_or(canonical, |end| &canonical[..end]);
                let link = ["<", prefix, &self.segment, ">; rel=\"canonical\""].concat();
                // A segment that is not a valid header value was no UUID either.
                if let Ok(link) = HeaderValue::try_from(link) {
                    response.headers_mut().append(LINK, link);
                }
            }
            response
        })
    }

    /// Takes the query string, for a handler that parses it.
    pub fn take_query(&mut self) -> Option<String> {
        self.front.as_mut()?.0.query.take().and_then(|query| query.query().map(str::to_owned))
    }

    /// The result of authorization.
    fn caller(&self) -> Option<&Caller> {
        self.front.as_ref()?.0.caller.as_ref()
    }

    /// Returns true if credentials are checked.
    pub fn is_guarded(&self) -> bool {
        self.caller().is_some()
    }

    /// The authenticated principal.
    pub fn principal(&self) -> &Arc<Principal> {
        self.caller().map_or(Principal::anybody(), |caller| &caller.principal)
    }

    /// Why the handler must not run: another route was authorized, or there are parameters that the handler did not take.
    fn refused(&self) -> Option<Problem> {
        if let Some(Caller { template, .. }) = self.caller()
            && *template != Some(self.route.0)
        {
            tracing::error!(route = self.route.0, ?template, "a route is missing from the access table");
            return Some(Problem::internal());
        }
        Query::parse(self.front.as_ref()?.0.query.as_ref()?.query()?, &[]).finish().err()
    }
}

/// The last alternative of a resource: its path matches, but no earlier route supports the method.
pub fn method_not_allowed(
    endpoints: &'static [Endpoint],
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::path::full().and_then(move |path: FullPath| {
        let refused = endpoints.iter().find_map(|endpoint| {
            let mut templates = endpoint.templates.iter();
            let template = templates.find(|template| segment_at(template, path.as_str()).is_some())?;
            let mut response = Problem::method_not_allowed(endpoint.allow()).into_response();
            response.extensions_mut().insert(Route(template));
            Some(response)
        });
        ready(refused.ok_or_else(warp::reject::not_found))
    })
}
