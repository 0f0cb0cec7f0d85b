//! Accepts connections, and drains them at shutdown: requests in flight are answered.
//!
//! Clients that keep connections open, nginx above all, do not know about a shutdown. Closing a connection while a request is
//! on its way loses the request, and nginx never repeats a change. Therefore the client closes, not the server: each response
//! has `Connection: close`, an idle connection is kept until its client has closed it, and new connections are still accepted.
//! This phase ends when every connection from before the shutdown has ended, at the latest after the grace period, which is
//! longer than nginx keeps an idle connection.

use std::convert::Infallible;
use std::net::IpAddr;
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
use crate::http::client::is_public;

/// Maximum size of a request line and its headers.
const HEADERS_MAX_BYTES: usize = 64 * 1024;

/// Accepting fails if the process is out of descriptors or memory; the pause lets connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client that found the socket before it was withdrawn is in its queue within this time: connecting takes microseconds.
const QUEUED_WITHIN: Duration = Duration::from_millis(20);

/// Clients send a request when they connect: a connection newer than this does not count as idle.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// Accepts the connections of one listener.
pub struct Acceptor<S> {
    listener: Listener,
    service: Observed<S>,
    limits: ServerLimits,
    open: Open,
}

/// The open connections.
#[derive(Default)]
struct Open {
    graceful: GracefulShutdown,
    /// Each connection holds a receiver.
    present: watch::Sender<()>,
}

impl Open {
    /// Returns when all connections have ended, or when the patience is exhausted.
    async fn ended(&self, patience: Duration) {
        let _ = timeout(patience, self.present.closed()).await;
    }

    /// Closes idle connections, and waits for the others.
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
    /// An acceptor that does not accept yet.
    pub fn new(listener: Listener, service: Observed<S>, limits: ServerLimits) -> Self {
        Self { listener, service, limits, open: Open::default() }
    }

    /// Accepts and serves connections for as long as it is polled.
    pub async fn accept(&self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok(listener::Stream::Tcp(stream)) => {
                    // A client that has reset the connection has no address, but its request may have arrived.
                    let (Ok(peer), Ok(here)) = (stream.peer_addr(), stream.local_addr()) else { continue };
                    let (peer, here) = (peer.ip(), here.ip());
                    self.serve(stream, Some(self.limits.header_timeout), is_public(peer, here).then_some(peer));
                }
                Ok(listener::Stream::Unix(stream)) => {
                    if let Some(bytes) = self.limits.send_buffer {
                        // A failure to set it only costs memory.
                        let _ = socket2::SockRef::from(&stream).set_send_buffer_size(bytes);
                    }
                    self.serve(stream, None, None);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                    // The connection stays in the queue and the listener stays readable: without a pause this loop would spin.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        header_timeout: Option<Duration>,
        public_peer: Option<IpAddr>,
    ) {
        let stream = Heads::new(stream, self.service.recorder.clone());
        let service = stream.reporting(Observed { public_peer, ..self.service.clone() });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(HEADERS_MAX_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.open.graceful.watch(connection);
        let present = self.open.present.subscribe();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Disconnects and malformed input by clients are not errors of the server.
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
            }
            drop(present);
        });
    }

    /// Drains: no request in flight is lost.
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
                    "requests in flight were aborted at the deadline"
                );
                Drained::Partly
            }
        }
    }
}
