//! Filters the bytes between a connection and hyper: bytes of a target that hyper would refuse are percent-encoded before hyper
//! reads them, and a head that hyper still refuses is answered with a problem document.
//!
//! hyper answers a head that it cannot parse with a bare status. It also refuses `"`, `<` and `>` in a query, which other
//! servers accept and the filter grammar of lists uses. Only the bytes of a request's target are ever changed. The start of a
//! head is never guessed: hyper receives no byte after a head before it has called the service, which shows how it reads the
//! body (none, a length, or chunks); the end of the body is computed from that. Once the bytes are not as expected, the rest of
//! the connection passes unchanged.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use warp::http::Request;

use super::framing::{Chunks, Head, Progress};
use super::observe::Recorder;
use super::refusal;

/// Maximum time that a connection stays open after a refusal, so that its sender can read it.
const LINGER: Duration = Duration::from_secs(2);

/// hyper has not called the service since the last head.
const NO_REQUEST: u64 = u64::MAX;
/// The body is chunked.
const IN_CHUNKS: u64 = u64::MAX - 1;

/// A connection whose heads are filtered.
pub struct Heads<S> {
    stream: S,
    position: Position,
    /// How hyper reads the body of the last request: its length, or one of the constants above.
    framing: Arc<AtomicU64>,
    /// Read from the stream but not yet parsed.
    unparsed: BytesMut,
    /// Parsed, but did not fit hyper's buffer.
    ready: BytesMut,
    /// The start of the last head, as received.
    kept: Vec<u8>,
    recorder: Recorder,
    refusal: Option<Refusal>,
}

/// The position in the bytes of the connection.
enum Position {
    /// Before a request, or in its head.
    Head(Head),
    /// After a head that hyper has completely.
    BehindHead,
    /// In a body with this many bytes left.
    Length(u64),
    /// In a chunked body.
    Chunks(Chunks),
    /// Not known any more.
    Lost,
}

/// A problem document that replaces hyper's refusal.
struct Refusal {
    unsent: BytesMut,
    /// Whether the write side is shut down and only the sender's remaining bytes are read.
    is_shut: bool,
    patience: Pin<Box<Sleep>>,
}

impl<S> Heads<S> {
    /// Filters a connection; refusals are recorded.
    pub fn new(stream: S, recorder: Recorder) -> Self {
        Self {
            stream,
            position: Position::Head(Head::default()),
            framing: Arc::new(AtomicU64::new(NO_REQUEST)),
            unparsed: BytesMut::new(),
            ready: BytesMut::new(),
            kept: Vec::new(),
            recorder,
            refusal: None,
        }
    }

    /// Wraps a service so that it reports to this connection how hyper reads each body.
    pub fn reporting<T>(&self, service: T) -> FramingReporter<T> {
        FramingReporter { service, framing: self.framing.clone() }
    }

    /// Takes the body framing that the service has reported, if any.
    fn take_framing(&mut self) {
        let framing = match self.framing.load(Ordering::Relaxed) {
            NO_REQUEST => None,
            framing => {
                self.framing.store(NO_REQUEST, Ordering::Relaxed);
                Some(framing)
            }
        };
        match (&self.position, framing) {
            (Position::BehindHead, Some(0)) => self.next_head(),
            (Position::BehindHead, Some(IN_CHUNKS)) => self.position = Position::Chunks(Chunks::default()),
            (Position::BehindHead, Some(length)) => self.position = Position::Length(length),
            // hyper continues after what looked like the end of a head, or has found one elsewhere.
            (Position::BehindHead, None) | (_, Some(_)) => self.lose(),
            (_, None) => {}
        }
    }

    fn lose(&mut self) {
        self.position = Position::Lost;
        self.kept.clear();
    }

    fn next_head(&mut self) {
        self.position = Position::Head(Head::default());
        self.kept.clear();
    }

    /// Parses bytes; returns how many of them hyper may have now, and their replacement if they are changed.
    fn parse(&mut self, new: &[u8]) -> (usize, Option<BytesMut>) {
        match &mut self.position {
            Position::Head(head) => {
                let seen = head.parse(new);
                let room = refusal::KEPT.saturating_sub(self.kept.len()).min(seen.length);
                self.kept.extend_from_slice(&new[..room]);
                if seen.is_whole {
                    self.position = Position::BehindHead;
                }
                (seen.length, seen.encoded)
            }
            Position::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(new.len());
                *left -= length as u64;
                if *left == 0 {
                    self.next_head();
                }
                (length, None)
            }
            Position::Chunks(chunks) => match chunks.parse(new) {
                Progress::Within => (new.len(), None),
                Progress::End(length) => {
                    self.next_head();
                    (length, None)
                }
                Progress::Lost => {
                    self.lose();
                    (new.len(), None)
                }
            },
            Position::BehindHead | Position::Lost => (new.len(), None),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ready.is_empty() {
            hand_over(&mut this.ready, buf);
            return Poll::Ready(Ok(()));
        }
        let begin = buf.filled().len();
        let is_again = !this.unparsed.is_empty();
        if is_again {
            buf.put_slice(&this.unparsed[..this.unparsed.len().min(buf.remaining())]);
        } else {
            ready!(Pin::new(&mut this.stream).poll_read(context, buf))?;
        }
        this.take_framing();
        let new = &buf.filled()[begin..];
        let (length, encoded) = this.parse(new);
        if is_again {
            this.unparsed.advance(length);
        } else if length < new.len() {
            this.unparsed.extend_from_slice(&new[length..]);
        }
        match encoded {
            None => buf.set_filled(begin + length),
            Some(encoded) => {
                this.ready = encoded;
                buf.set_filled(begin);
                hand_over(&mut this.ready, buf);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn hand_over(from: &mut BytesMut, buf: &mut ReadBuf<'_>) {
    let part = from.split_to(from.len().min(buf.remaining()));
    buf.put_slice(&part);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Heads<S> {
    /// Returns true if these bytes are hyper's own refusal of a head; a problem document is then sent instead.
    fn replaces(&mut self, written: &[u8]) -> bool {
        // Responses of the service begin differently, and while a request is pending hyper writes the response to it.
        if self.framing.load(Ordering::Relaxed) != NO_REQUEST || !refusal::is_bare(written) {
            return false;
        }
        let answer = refusal::answer(&self.kept, written);
        self.recorder.refused(&answer);
        let patience = Box::pin(tokio::time::sleep(LINGER)); // a deadline: the client may close earlier
        self.refusal = Some(Refusal { unsent: answer.bytes, is_shut: false, patience });
        true
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(())) };
        while !refusal.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &refusal.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.unsent.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(first) = bufs.first().filter(|first| first.starts_with(refusal::BEGINS))
            && this.replaces(first)
        {
            return Poll::Ready(Ok(first.len()));
        }
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    /// After a refusal the sender's bytes are read to the end, within limits: closing a connection with unread bytes discards
    /// the response (RFC 9112, section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        let Some(refusal) = &mut this.refusal else { return Pin::new(&mut this.stream).poll_shutdown(context) };
        if !refusal.is_shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            refusal.is_shut = true;
        }
        let mut thrown_away = [0; 4096];
        while refusal.patience.as_mut().poll(context).is_pending() {
            let mut buf = ReadBuf::new(&mut thrown_away);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut buf))?;
            if buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A service that reports to its connection how hyper reads each body.
pub struct FramingReporter<T> {
    service: T,
    framing: Arc<AtomicU64>,
}

impl<T: Service<Request<Incoming>>> Service<Request<Incoming>> for FramingReporter<T> {
    type Response = T::Response;
    type Error = T::Error;
    type Future = T::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let body = request.body();
        let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        self.framing.store(length.unwrap_or(IN_CHUNKS), Ordering::Relaxed);
        self.service.call(request)
    }
}
