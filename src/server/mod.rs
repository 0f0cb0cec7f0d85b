//! Joins the resources into one service and serves it on a listener until told to stop.
//!
//! Built-in rejections are recovered here, once; the access log and the metrics wrap the recovered service, so each
//! request is recorded once, with the status the client saw. A stop drains: no new connections, requests in flight
//! finish, and a deadline bounds it all.

pub mod access_log;
mod framing;
pub mod gate;
pub mod guard;
mod heads;
pub mod listener;
pub mod observe;
pub mod quota;
mod refusal;
mod unread;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use warp::filters::BoxedFilter;
use warp::http::Request;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::http::problem::{Code, Problem};
use crate::http::target;
use crate::shutdown::Shutdown;
use access_log::AccessLog;
use guard::{Guard, Guarded};
use heads::Heads;
use listener::Listener;
use observe::{Observed, Recorder};
use unread::Watched;

/// Most bytes of a request line and its headers.
const HEADERS_MAX_BYTES: usize = 64 * 1024;

/// A failed accept means that the process is out of descriptors or memory; the pause lets connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Longest wait for the headers of a request on TCP.
    pub header_timeout: Duration,
    /// Most bytes that the kernel keeps of an answer on a Unix socket, where the system's own number is too many.
    pub send_buffer: Option<usize>,
    /// Longest wait for requests in flight after a stop was asked for.
    pub drain_timeout: Duration,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Whole,
    /// The deadline passed first.
    Partly,
}

/// Every route, the hottest first, with whatever none of them takes answered as 404.
pub fn routes(resources: Vec<BoxedFilter<(Response,)>>) -> BoxedFilter<(Response,)> {
    // Joined from the end, so that a request for the first resource passes one alternative and not all of them.
    let joined = resources.into_iter().rev().reduce(|rest, resource| resource.or(rest).unify().boxed());
    joined.expect("a server has routes").or(target::without_slash()).unify().recover(recover).unify().boxed()
}

async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    let problem = if rejection.is_not_found() {
        Problem::new(Code::NotFound, "nothing is served at this path; GET / lists what is")
    } else {
        // Our filters reject with "not found" only, so this is a defect worth a line in the log.
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
    log: AccessLog,
    shutdown: Shutdown,
) -> Drained {
    let service = Guarded { service: TowerToHyperService::new(warp::service(routes)), guard };
    let service = Observed { service, recorder: Recorder::new(log) };
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => break,
        };
        match accepted {
            Ok(listener::Stream::Tcp(stream)) => {
                spawn_connection(stream, service.clone(), Some(limits.header_timeout), &graceful);
            }
            Ok(listener::Stream::Unix(stream)) => {
                if let Some(bytes) = limits.send_buffer {
                    // Failing to set it only costs memory.
                    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(bytes);
                }
                spawn_connection(stream, service.clone(), None, &graceful);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                // The connection stays in the queue and the listener readable: without a pause this would spin.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    match tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await {
        Ok(()) => Drained::Whole,
        Err(_) => {
            tracing::warn!(
                deadline_ms = limits.drain_timeout.as_millis(),
                "requests in flight were cut off at the deadline"
            );
            Drained::Partly
        }
    }
}

fn spawn_connection<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Observed<S>,
    header_timeout: Option<Duration>,
    graceful: &GracefulShutdown,
) where
    S: Service<Request<Watched>, Response = warp::http::Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data = Bytes> + Send + Unpin + 'static,
{
    let stream = Heads::new(stream, service.recorder.clone());
    let service = stream.told(service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Clients that vanish or talk nonsense are no fault of the server.
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
        }
    });
}
