//! Checks each request before routing: the host name, the origin of unsafe requests, the form of the target, and the
//! credentials.
//!
//! It reads the head only, never the body. A permitted request costs two header lookups.

use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use hyper::service::Service;
use warp::http::header::HOST;
use warp::http::{HeaderMap, Request};
use warp::reply::Response;

use super::gate::{Admission, Gate};
use crate::http::browser::check_origin;
use crate::http::cors::Origins;
use crate::http::host::Hosts;
use crate::http::problem::{Code, Problem};
use crate::http::route::{Caller, Front, Route};
use crate::http::target;

/// The route label of refusals in logs and metrics: they precede routing.
const REFUSED: Route = Route("refused");
/// Maximum characters of an unknown host name that the problem repeats.
const SHOWN_MAX_CHARS: usize = 100;

/// The checks before routing.
pub struct Guard {
    /// The accepted host names.
    pub hosts: Hosts,
    /// The other origins whose pages may write.
    pub origins: Origins,
    /// Authorization; `None` if credentials are not checked.
    pub gate: Option<Arc<Gate>>,
}

impl Guard {
    /// Adds CORS headers to a response that bypasses routing.
    fn with_cors(&self, headers: &HeaderMap, mut response: Response) -> Response {
        self.origins.add_headers(headers, response.headers_mut());
        response
    }

    fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if request.uri().path_and_query().is_none() {
            // A target with only host and port, as for CONNECT, is for proxies (RFC 9112, section 3.2.3).
            return Err(Problem::new(
                Code::BadRequest,
                "the target of the request must be a path such as /v1/passengers",
            ));
        }
        self.check_host(request)?;
        check_origin(request, &self.origins)
    }

    /// Requests without `Host` are HTTP/1.0 and never from browsers.
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
        format!("{shown:?} is not a name of this service; the operator can add it to ALLOWED_HOSTS"),
    )
}

/// A service behind a guard.
#[derive(Clone)]
pub struct Guarded<S> {
    /// The guarded service.
    pub service: S,
    /// The checks.
    pub guard: Arc<Guard>,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response, Future: Send> + Clone + Send + Sync + 'static,
    B: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future =
        Either<S::Future, Either<Ready<Result<Response, S::Error>>, BoxFuture<'static, Result<Response, S::Error>>>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        let refused = |response| Either::Right(Either::Left(ready(Ok(response))));
        if let Err(problem) = self.guard.check(&request) {
            let mut response = problem.into_response();
            response.extensions_mut().insert(REFUSED);
            return refused(self.guard.with_cors(request.headers(), response));
        }
        if let Some(normal) = target::normal(request.uri()) {
            *request.uri_mut() = normal;
        }
        let caller = match &self.guard.gate {
            None => None,
            Some(gate) => match gate.admit(&request) {
                Admission::Decided(Ok(caller)) => Some(caller),
                Admission::Decided(Err(refusal)) => {
                    return refused(self.guard.with_cors(request.headers(), gate.answer(request.headers(), *refusal)));
                }
                Admission::NeedsLookup(pending) => {
                    let (gate, Self { service, guard }) = (gate.clone(), self.clone());
                    let answering = async move {
                        match gate.look_up(pending).await {
                            Ok(caller) => service.call(with_front(request, Some(caller))).await,
                            Err(refusal) => {
                                Ok(guard.with_cors(request.headers(), gate.answer(request.headers(), *refusal)))
                            }
                        }
                    };
                    return Either::Right(Either::Right(answering.boxed()));
                }
            },
        };
        Either::Left(self.service.call(with_front(request, caller)))
    }
}

fn with_front<B>(mut request: Request<B>, caller: Option<Caller>) -> Request<B> {
    if let Some(front) = Front::of(request.uri(), caller) {
        request.extensions_mut().insert(front);
    }
    request
}
