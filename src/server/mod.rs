//! Joins the resources into one service and serves it on a listener until a shutdown is requested.
//!
//! Built-in rejections are recovered here, once; the access log and the metrics wrap the recovered service, so that each
//! request is recorded once, with the status that the client received. `acceptor` drains at shutdown.

mod acceptor;
pub mod access_log;
mod framing;
pub mod gate;
pub mod guard;
mod heads;
mod identity;
pub mod listener;
pub mod observe;
pub mod quota;
mod refusal;
mod unread;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::http::problem::{Code, Problem};
use crate::http::target;
use crate::shutdown::Shutdown;
use crate::trace::tracer::Tracer;
use acceptor::Acceptor;
use access_log::AccessLog;
use guard::{Guard, Guarded};
use listener::Listener;
use observe::{Observed, Recorder};

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Maximum wait for the headers of a request on TCP.
    pub header_timeout: Duration,
    /// Size of the kernel's send buffer for a Unix socket, if the system's default is too large.
    pub send_buffer: Option<usize>,
    /// Maximum wait for requests in flight after a shutdown was requested.
    pub drain_timeout: Duration,
    /// The part of that time during which connections are accepted and idle ones kept.
    pub drain_grace: Duration,
}

/// The result of draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Whole,
    /// The deadline passed first.
    Partly,
}

/// Joins the routes, the most frequent first; unmatched requests get 404.
pub fn routes(resources: Vec<BoxedFilter<(Response,)>>) -> BoxedFilter<(Response,)> {
    // Joined from the end, so that a request for the first resource passes one alternative instead of all.
    let joined = resources.into_iter().rev().reduce(|rest, resource| resource.or(rest).unify().boxed());
    joined.expect("a server has routes").or(target::without_slash()).unify().recover(recover).unify().boxed()
}

async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = if rejection.is_not_found() {
        Problem::new(Code::NotFound, "nothing is served at this path; GET / lists the paths")
    } else {
        // Our filters reject with "not found" only, so this is a bug and is logged.
        tracing::error!(?rejection, "unexpected rejection");
        Problem::new(Code::Internal, "the server failed to route this request; report it with its X-Request-Id")
    };
    Ok(problem.into_response())
}

/// Serves until the shutdown is requested, then drains.
pub async fn serve(
    listener: Listener,
    (guard, routes): (Arc<Guard>, BoxedFilter<(Response,)>),
    limits: ServerLimits,
    (log, tracer): (AccessLog, Option<Arc<Tracer>>),
    shutdown: Shutdown,
) -> Drained {
    let service = Guarded { service: TowerToHyperService::new(warp::service(routes)), guard };
    let is_behind_proxy = matches!(listener, Listener::Unix(..));
    let service = Observed {
        service,
        recorder: Recorder::new(log, tracer),
        draining: Arc::default(),
        is_behind_proxy,
        public_peer: None,
    };
    let acceptor = Acceptor::new(listener, service, limits);
    tokio::select! {
        never = acceptor.accept() => match never {},
        () = shutdown.requested() => acceptor.drain().await,
    }
}
