//! Discards request bodies that no handler reads, before the response is sent.
//!
//! A request may be answered without reading its body, for example if its method or media type is not supported. The connection
//! would then be closed with unread bytes, and on a socket that discards the response: of the requests that nginx forwards
//! while they arrive, one in thirty was answered with 502 instead of 405 or 415. Discarding is bounded, so the connection of a
//! client that keeps sending is closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use warp::http::Request;
use warp::http::header::EXPECT;

/// Maximum number of discarded bytes: the default limit of a bulk body.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum delay of the response.
const TIME_MAX: Duration = Duration::from_secs(2);

/// A request body that is returned when its handler drops it before the end.
pub struct Watched {
    body: Option<Incoming>,
    received: Received,
    back: Option<oneshot::Sender<Incoming>>,
}

/// The number of bytes of a request's body read so far; nothing is counted for a request without a body.
#[derive(Debug, Clone, Default)]
pub struct Received(Option<Arc<AtomicU64>>);

impl Received {
    /// The number of bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.0.as_ref().map(|bytes| bytes.load(Ordering::Relaxed))
    }

    fn add(&self, frame: &Frame<Bytes>) {
        if let (Some(bytes), Some(data)) = (&self.0, frame.data_ref()) {
            bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Receives the returned body.
pub struct Unread {
    back: Option<oneshot::Receiver<Incoming>>,
    /// The bytes read from it, by the handler or here.
    pub received: Received,
}

/// Watches the body of a request, if it has one.
pub fn watch(request: Request<Incoming>) -> (Request<Watched>, Unread) {
    // A client that sends `Expect` has not sent the body yet, and reading would invite it to.
    let is_expected = request.headers().contains_key(EXPECT);
    let received = Received((!request.body().is_end_stream()).then(Arc::default));
    let (back, unread) = (received.0.is_some() && !is_expected).then(oneshot::channel).unzip();
    let counted = received.clone();
    (request.map(|body| Watched { body: Some(body), received: counted, back }), Unread { back: unread, received })
}

impl Unread {
    /// Discards what the handler has not read.
    pub async fn discard(self) {
        // A handler that streams its response may still be reading; then nothing has been returned.
        let Some(body) = self.back.and_then(|mut unread| unread.try_recv().ok()) else { return };
        // At the deadline the connection is closed with unread bytes.
        let _ = tokio::time::timeout(TIME_MAX, discard(body, &self.received)).await;
    }
}

async fn discard(mut body: Incoming, received: &Received) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        received.add(&frame);
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BYTES_MAX {
            return;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            let _ = back.send(body); // fails only if the client has disconnected
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.received.add(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
