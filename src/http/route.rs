//! URL templates such as `/v1/passengers/{uuid}`: matching them, and labelling answers with them.
//!
//! The short and the canonical URL of an operation are two templates of one handler. The template travels with the
//! response, so logs and metrics are labelled by it and never by a raw path.

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;
use warp::filters::path::FullPath;
use warp::http::Method;
use warp::http::header::{HeaderValue, LINK};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::problem::Problem;
use super::timing::{self, SERVER_TIMING};
use crate::db::spent;

/// The template an answer belongs to, kept in the response's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(pub &'static str);

/// The templates of a resource, and for each the methods that `Allow` lists.
pub type Allowed = &'static [(&'static [&'static str], &'static str)];

/// A request whose path fits a template.
#[derive(Debug)]
pub struct Matched {
    /// The template, for labels.
    pub route: Route,
    /// The operation's first template, when the one that fitted is another.
    canonical: Option<&'static str>,
    /// The path segment at the placeholder; empty when the template has none.
    pub segment: String,
}

/// Lets requests through whose path fits one of the templates; a template may end in one `{placeholder}`. Of the
/// templates of one operation the canonical one comes first.
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
    warp::path::full().and_then(move |path: FullPath| {
        let matched = templates.iter().find_map(|template| {
            let segment = segment_at(template, path.as_str()).filter(|_| !others.contains(&path.as_str()))?;
            let canonical = templates.first().copied().filter(|canonical| canonical != template);
            Some(Matched { route: Route(template), canonical, segment: segment.to_owned() })
        });
        ready(matched.ok_or_else(warp::reject::not_found))
    })
}

/// The path's part at the template's placeholder, if the path fits; empty when there is no placeholder.
fn segment_at<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    match template.split_once('{') {
        None => (path == template).then_some(""),
        Some((prefix, _)) => path.strip_prefix(prefix).filter(|rest| !rest.is_empty() && !rest.contains('/')),
    }
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

/// Runs a handler and labels its answer, be it the result or the problem, with its route and the time that it took.
///
/// A handler that panics is answered with a 500 and takes nobody else down; the panic hook has logged it by then.
/// No `async fn`: each would hold the handler's future twice, once given and once awaited.
pub fn answer(route: Route, work: impl Future<Output = Result<Response, Problem>>) -> impl Future<Output = Response> {
    let begun = Instant::now();
    spent::counted(AssertUnwindSafe(work).catch_unwind()).map(move |(outcome, waited)| {
        let mut response = outcome.unwrap_or_else(|_| Err(Problem::internal())).unwrap_or_else(Problem::into_response);
        response.headers_mut().insert(SERVER_TIMING, timing::value(begun.elapsed(), waited));
        response.extensions_mut().insert(route);
        response
    })
}

impl Matched {
    /// The same for a template that may be the short one of an operation; its answers link the canonical URL (RFC 6596).
    pub fn answer(&self, work: impl Future<Output = Result<Response, Problem>>) -> impl Future<Output = Response> {
        answer(self.route, work).map(|mut response| {
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
}

/// The last alternative of a resource: its paths exist, and no method before this one fitted.
pub fn method_not_allowed(
    allowed: Allowed,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::path::full().and_then(move |path: FullPath| {
        let refused = allowed.iter().find_map(|(templates, allow)| {
            let template = templates.iter().find(|template| segment_at(template, path.as_str()).is_some())?;
            let mut response = Problem::method_not_allowed(allow).into_response();
            response.extensions_mut().insert(Route(template));
            Some(response)
        });
        ready(refused.ok_or_else(warp::reject::not_found))
    })
}

#[cfg(test)]
mod tests {
    use super::segment_at;

    #[test]
    fn a_placeholder_takes_exactly_one_segment() {
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/abc"), Some("abc"));
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/"), None);
        assert_eq!(segment_at("/v1/p/{uuid}", "/v1/p/a/b"), None);
        assert_eq!(segment_at("/v1/p", "/v1/p"), Some(""));
        assert_eq!(segment_at("/v1/p", "/v1/p/"), None);
    }
}
