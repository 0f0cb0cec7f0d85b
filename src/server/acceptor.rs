//! Accepts connections, and drains: what is on its way when a stop was asked for is answered.
//!
//! Whoever sends requests on kept connections, nginx above all, does not know of a stop. A connection that is closed under a
//! request takes it along, and a change is never sent twice. So the client closes, and not the server: each answer says
//! `Connection: close`, an idle connection is kept until its client has closed it, and connections are accepted meanwhile. That
//! ends when every connection from before the stop has ended, and with the grace, which is longer than nginx keeps one idle.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use warp::http::{Request, Response};

use super::heads::Heads;
use super::listener::{self, Listener};
use super::observe::Observed;
use super::unread::Watched;
use super::{Drained, ServerLimits};

/// Most bytes of a request line and its headers.
const HEADERS_MAX_BYTES: usize = 64 * 1024;

/// A failed accept means that the process is out of descriptors or memory; the pause lets connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whoever has found a socket before it was withdrawn is in its queue within this time: connecting takes microseconds.
const QUEUED_WITHIN: Duration = Duration::from_millis(20);

/// Whoever connects sends a request with it: a connection that is as new is not taken for an idle one.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// Accepts the connections of one listener.
pub struct Acceptor<S> {
    listener: Listener,
    service: Observed<S>,
    limits: ServerLimits,
    open: Open,
}

/// Connections that are open.
#[derive(Default)]
struct Open {
    graceful: GracefulShutdown,
    /// Each of them has a receiver.
    present: watch::Sender<()>,
}

impl Open {
    /// Returns when all have ended, or at the end of the patience.
    async fn ended(&self, patience: Duration) {
        let _ = timeout(patience, self.present.closed()).await;
    }

    /// Closes those that are idle, and waits for the others.
    async fn end(self) {
        self.graceful.shutdown().await;
    }
}

impl<S, B> Acceptor<S>
where
    S: Service<Request<Watched>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>, Data = Bytes>
        + From<Vec<u8>>
        + Send
        + Unpin
        + 'static,
{
    /// Accepts nothing yet.
    pub fn new(listener: Listener, service: Observed<S>, limits: ServerLimits) -> Self {
        Self { listener, service, limits, open: Open::default() }
    }

    /// Serves whoever connects, for as long as it is polled.
    pub async fn accept(&self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok(listener::Stream::Tcp(stream)) => self.serve(stream, Some(self.limits.header_timeout)),
                Ok(listener::Stream::Unix(stream)) => {
                    if let Some(bytes) = self.limits.send_buffer {
                        // Failing to set it only costs memory.
                        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(bytes);
                    }
                    self.serve(stream, None);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                    // The connection stays in the queue and the listener readable: without a pause this would spin.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, header_timeout: Option<Duration>) {
        let stream = Heads::new(stream, self.service.recorder.clone());
        let service = stream.told(self.service.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(HEADERS_MAX_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.open.graceful.watch(connection);
        let present = self.open.present.subscribe();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients that vanish or talk nonsense are no fault of the server.
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
            }
            drop(present);
        });
    }

    /// Ends, losing no request that is on its way.
    pub async fn drain(mut self) -> Drained {
        self.service.draining.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let early = std::mem::take(&mut self.open);
        tokio::select! {
            never = self.accept() => match never {},
            () = early.ended(self.limits.drain_grace.min(self.limits.drain_timeout)) => {}
        }
        if self.listener.withdraw() {
            let _ = timeout(QUEUED_WITHIN, self.accept()).await;
        }
        let Self { listener, open: late, limits, .. } = self;
        drop(listener);
        let late = async {
            late.ended(REQUEST_WITHIN).await;
            late.end().await;
        };
        match timeout_at(begun + limits.drain_timeout, join(early.end(), late)).await {
            Ok(((), ())) => Drained::Whole,
            Err(_) => {
                tracing::warn!(
                    deadline_ms = limits.drain_timeout.as_millis(),
                    "requests in flight were cut off at the deadline"
                );
                Drained::Partly
            }
        }
    }
}
