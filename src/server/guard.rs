//! What stands in front of every route: the host name, the origin of what writes, and the form of the target.
//!
//! It looks at the request as it came and reads no body. A request that passes pays for two header lookups.

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::future::Either;
use hyper::service::Service;
use warp::http::Request;
use warp::http::header::HOST;
use warp::reply::Response;

use crate::http::browser::check_origin;
use crate::http::cors::Origins;
use crate::http::host::Hosts;
use crate::http::problem::{Code, Problem};
use crate::http::route::{Front, Route};
use crate::http::target;

/// The label of refusals in logs and metrics: they are answered before any route is looked at.
const REFUSED: Route = Route("refused");
/// Most characters of a wrong name that its refusal repeats.
const SHOWN_MAX_CHARS: usize = 100;

/// Who may ask.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Under which names.
    pub hosts: Hosts,
    /// Pages of which other origins may write.
    pub origins: Origins,
}

impl Guard {
    fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if request.uri().path_and_query().is_none() {
            // A host and a port alone, as for CONNECT, which only a proxy takes (RFC 9112, section 3.2.3).
            return Err(Problem::new(
                Code::BadRequest,
                "the target of the request must be a path such as /v1/passengers",
            ));
        }
        self.check_host(request)?;
        check_origin(request, &self.origins)
    }

    /// A request without a name is HTTP/1.0's, and no browser's.
    fn check_host<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if let Some(authority) = request.uri().authority()
            && !self.hosts.allow(authority.as_str())
        {
            return Err(misdirected(authority.as_str()));
        }
        let mut given = request.headers().get_all(HOST).iter();
        let Some(host) = given.next() else { return Ok(()) };
        if given.next().is_some() {
            return Err(Problem::new(Code::InvalidHeader, "Host must be given once"));
        }
        let name = std::str::from_utf8(host.as_bytes());
        if name.is_ok_and(|name| name.is_empty() || self.hosts.allow(name)) {
            return Ok(());
        }
        Err(misdirected(&String::from_utf8_lossy(host.as_bytes())))
    }
}

fn misdirected(host: &str) -> Problem {
    let shown: String = host.chars().take(SHOWN_MAX_CHARS).collect();
    Problem::new(
        Code::MisdirectedRequest,
        format!("{shown:?} is no name of this service; the operator can add it with ALLOWED_HOSTS"),
    )
}

/// A service that only those may ask.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    /// What answers.
    pub service: S,
    /// Who may ask.
    pub guard: Arc<Guard>,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        if let Err(problem) = self.guard.check(&request) {
            let mut response = problem.into_response();
            response.extensions_mut().insert(REFUSED);
            self.guard.origins.mark(request.headers(), response.headers_mut());
            return Either::Right(ready(Ok(response)));
        }
        if let Some(normal) = target::normal(request.uri()) {
            *request.uri_mut() = normal;
        }
        if let Some(front) = Front::of(request.uri(), None) {
            request.extensions_mut().insert(front);
        }
        Either::Left(self.service.call(request))
    }
}
