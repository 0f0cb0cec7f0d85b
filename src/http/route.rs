//! URL templates such as `/v1/passengers/{uuid}`: matching them, and labelling answers with them.
//!
//! The short and the canonical URL of an operation are two templates of one handler. The template travels with the
//! response, so logs and metrics are labelled by it and never by a raw path.
//!
//! Parameters are part of a route: [`at`] refuses whatever the query string holds, [`at_with_query`] hands it to a handler
//! that reads it by [`super::query::Query`], which refuses what is unknown. So none is ever ignored.

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::Either;
use warp::filters::path::FullPath;
use warp::http::header::{HeaderName, HeaderValue, LINK, RETRY_AFTER};
use warp::http::uri::PathAndQuery;
use warp::http::{Method, Uri};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::endpoint::{Endpoint, segment_at};
use super::problem::{Code, Problem};
use super::query::Query;
use super::timing::{self, SERVER_TIMING};
use crate::auth::principal::Principal;
use crate::db::wait_time;

/// The template an answer belongs to, kept in the response's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(pub &'static str);

/// Whom a request was let through for.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who asks.
    pub principal: Arc<Principal>,
    /// The template that they were let through to.
    pub template: Option<&'static str>,
    /// What is left of their share of requests, where it is counted.
    pub share: Option<Share>,
}

/// Kept in the response's extensions where somebody had credentials that prove nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unproven;

/// A principal's share of requests (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Requests in a second.
    pub per_second: u32,
    /// Those that may come now.
    pub remaining: u32,
}

impl Share {
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    const LEFT: HeaderName = HeaderName::from_static("ratelimit");

    fn headers(self) -> [(HeaderName, String); 2] {
        let Self { per_second, remaining } = self;
        [
            (Self::POLICY, format!("\"principal\";q={per_second};w=1")),
            (Self::LEFT, format!("\"principal\";r={remaining};t=1")),
        ]
    }

    /// What is answered to a request that is one too many; another may come after so many seconds.
    pub fn problem(self, seconds: u64) -> Problem {
        let detail = format!(
            "more than {} requests in a second come from this principal; send the next one after Retry-After",
            self.per_second
        );
        let problem = Problem::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, seconds.to_string());
        self.headers().into_iter().fold(problem, |problem, (name, value)| problem.with_header(name, value))
    }
}

/// What is known of a request in front of all routes, put into its extensions: only requests with a query or with
/// credentials pay for looking at it. In a box, because warp moves what is matched through every alternative.
#[derive(Debug, Clone)]
pub struct Front(Box<Known>);

#[derive(Debug, Clone)]
struct Known {
    /// The query string; gone when a handler has taken it.
    query: Option<PathAndQuery>,
    /// Whom the request was let through for; nobody where credentials are not looked at.
    caller: Option<Caller>,
}

impl Front {
    /// What is known of a request for this target; nothing when it has no query and nobody looks at credentials.
    pub fn of(uri: &Uri, caller: Option<Caller>) -> Option<Self> {
        let query = uri.query().filter(|query| !query.is_empty()).and(uri.path_and_query()).cloned();
        (query.is_some() || caller.is_some()).then(|| Self(Box::new(Known { query, caller })))
    }
}

/// A request whose path fits a template.
#[derive(Debug)]
pub struct Matched {
    /// The template, for labels.
    pub route: Route,
    /// The operation's first template, when the one that fitted is another.
    canonical: Option<&'static str>,
    /// The path segment at the placeholder; empty when the template has none.
    pub segment: String,
    /// What is known of it besides, if anything is.
    front: Option<Front>,
}

/// Lets requests through whose path fits one of the templates; a template may have one `{placeholder}`. Of the templates
/// of one operation the canonical one comes first. The operation has no parameters: any is refused.
pub fn at(
    templates: &'static [&'static str],
) -> impl Filter<Extract = (Matched,), Error = Rejection> + Clone + Send + Sync + 'static {
    at_except(templates, &[])
}

/// The same, but for fixed paths that a placeholder would take and that belong to other routes.
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

/// The same for several operations of one handler, such as files: no template is another's canonical one.
pub fn at_each(
    templates: &'static [&'static str],
) -> impl Filter<Extract = (Matched,), Error = Rejection> + Clone + Send + Sync + 'static {
    at(templates).map(|matched: Matched| Matched { canonical: None, ..matched })
}

/// The same for an operation with parameters: it gets the query string, empty when there is none, and reads it by
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

/// Lets GET through, and HEAD, which is answered like GET; hyper leaves the body out.
pub fn get_or_head() -> impl Filter<Extract = (), Error = Rejection> + Copy + Send + Sync + 'static {
    warp::method()
        .and_then(|method: Method| {
            let fits = method == Method::GET || method == Method::HEAD;
            ready(if fits { Ok(()) } else { Err(warp::reject::not_found()) })
        })
        .untuple_one()
}

impl Matched {
    /// Runs a handler and labels its answer, be it the result or the problem, with its route and the time that it took. An
    /// answer of an operation's short URL links the canonical one (RFC 6596). The handler does not run when there are
    /// parameters that it has not taken.
    ///
    /// A handler that panics is answered with a 500 and takes nobody else down; the panic hook has logged it by then.
    /// No `async fn`: each would hold the handler's future twice, once given and once awaited.
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
                for (name, value) in caller.share.into_iter().flat_map(Share::headers) {
                    response.headers_mut().insert(name, value.try_into().expect("digits are printable"));
                }
                response.extensions_mut().insert(caller.clone());
            }
            if let Some(canonical) = self.canonical {
                let prefix = canonical.bytes().position(|byte| byte == b'{').map_or(canonical, |end| &canonical[..end]);
                let link = ["<", prefix, &self.segment, ">; rel=\"canonical\""].concat();
                // A segment that no header can hold was no uuid either.
                if let Ok(link) = HeaderValue::try_from(link) {
                    response.headers_mut().append(LINK, link);
                }
            }
            response
        })
    }

    /// Takes the query string, which the handler reads then.
    pub fn take_query(&mut self) -> Option<String> {
        self.front.as_mut()?.0.query.take().and_then(|query| query.query().map(str::to_owned))
    }

    /// Whom the request was let through for.
    fn caller(&self) -> Option<&Caller> {
        self.front.as_ref()?.0.caller.as_ref()
    }

    /// Whether credentials are looked at.
    pub fn is_guarded(&self) -> bool {
        self.caller().is_some()
    }

    /// Who asks.
    pub fn principal(&self) -> &Arc<Principal> {
        self.caller().map_or(Principal::anybody(), |caller| &caller.principal)
    }

    /// Why the handler must not run: somebody was let through to another route than this one, or there are parameters that
    /// nobody has taken.
    fn refused(&self) -> Option<Problem> {
        if let Some(Caller { template, .. }) = self.caller()
            && *template != Some(self.route.0)
        {
            tracing::error!(route = self.route.0, ?template, "a route is not in the table of what routes ask for");
            return Some(Problem::internal());
        }
        Query::parse(self.front.as_ref()?.0.query.as_ref()?.query()?, &[]).finish().err()
    }
}

/// The last alternative of a resource: its paths exist, and no method before this one fitted.
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
