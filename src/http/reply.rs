//! Builds responses: whole, or streamed in chunks.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use super::budget::{Budget, Holder, Refused, Reservation};
use super::client::Client;
use super::problem::Problem;
use crate::db::error::StoreError;

/// Why a streamed response ends early.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the response could not be read")]
struct Truncated;

/// Capacity for the headers that most responses have, so that the map does not grow.
const HEADERS: usize = 10;

/// Maximum size of a first chunk: it is reserved before the chunk is produced.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Maximum size of a chunk that needs no more memory than was reserved for it before: twice what is reserved for a first one,
/// which 2,000 ordinary rows do not exceed.
const ORDINARY_BYTES: usize = 2 * CHUNK_BYTES;

/// Maximum wait of a list in progress for the memory of its next chunk, which becomes available when other chunks have been
/// sent; after that the list is truncated.
const REST_WAIT: Duration = Duration::from_secs(10);

/// Finished chunks that may be queued for a slow client, in addition to the one being produced.
const CHUNKS_AHEAD: usize = 1;

/// Responds with 200 and a value as JSON.
pub fn json(value: &impl Serialize) -> Response {
    json_bytes(StatusCode::OK, serde_json::to_vec(value).expect("our types have string keys only"))
}

/// Responds with a body that is already JSON.
pub fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = ok("application/json", body);
    *response.status_mut() = status;
    response
}

/// Responds with 200 and a body of this type.
pub fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A long response, produced in chunks.
pub trait Chunks: Send + 'static {
    /// The next chunk, which may be empty, and whether more may follow; `room` is its expected size, and `held` its memory.
    fn next(
        &mut self,
        room: usize,
        held: &Reservation,
    ) -> impl Future<Output = Result<(Vec<u8>, bool), StoreError>> + Send;
}

/// The memory for list chunks until clients have read them.
#[derive(Clone)]
pub struct Buffers {
    budget: Budget,
    wait: Duration,
}

/// A chunk, whose memory stays reserved until its last byte is in the kernel's buffer.
struct Buffer {
    bytes: Vec<u8>,
    _held: Reservation,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Buffers {
    /// Buffers within a budget, and how long a request waits for it.
    pub fn new(budget: Budget, wait: Duration) -> Self {
        Self { budget, wait }
    }

    /// Waits for memory before anything is read.
    ///
    /// # Errors
    /// If none becomes available in time.
    pub async fn reserve(&self, holder: Holder, bytes: usize) -> Result<Reservation, Refused> {
        self.budget.wait(holder, bytes, Instant::now() + self.wait).await
    }

    /// Counts bytes that are already in memory, even beyond the budget, until the last copy is dropped.
    pub fn hold(&self, client: Client, bytes: Bytes) -> Bytes {
        part(bytes, self.empty(client))
    }

    /// A reservation of nothing yet.
    pub fn empty(&self, client: Client) -> Reservation {
        self.budget.empty(Holder::Client(client))
    }

    /// Whether chunks should be small because memory is scarce.
    pub fn are_scarce(&self) -> bool {
        self.budget.is_scarce()
    }
}

/// The memory of a chunk or page while it is produced.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Its reservation.
    pub held: &'a Reservation,
    /// The size after which it ends.
    pub bytes: usize,
}

impl Room<'_> {
    /// Whether a chunk or page of this size must end; if not, its memory is reserved.
    pub fn is_full(&self, bytes: usize) -> bool {
        let held = self.held.bytes().max(ORDINARY_BYTES);
        bytes >= self.bytes || bytes > held && self.held.try_grow((bytes - self.held.bytes()).max(CHUNK_BYTES)).is_err()
    }
}

/// Bytes whose memory stays reserved until the last copy is dropped.
pub fn buffer(mut bytes: Vec<u8>, mut held: Reservation) -> Bytes {
    if bytes.capacity() > bytes.len() + CHUNK_BYTES {
        bytes.shrink_to_fit();
    }
    held.resize(bytes.capacity());
    Bytes::from_owner(Buffer { bytes, _held: held })
}

/// One client's part of bytes that several clients share.
pub fn part(bytes: Bytes, mut held: Reservation) -> Bytes {
    /// The bytes and the reservation for the part.
    struct Part(Bytes, #[expect(dead_code, reason = "it is held")] Reservation);
    impl AsRef<[u8]> for Part {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    held.resize(bytes.len());
    Bytes::from_owner(Part(bytes, held))
}

/// The problem for a list without memory.
pub fn no_buffer(refused: Refused) -> Problem {
    refused.problem("memory for lists")
}

/// Responds with 200 and all chunks. A single chunk is sent whole, with its length; more chunks are streamed, and each is
/// produced when the client has taken the previous one, so a slow client holds the memory of two chunks and nothing else.
///
/// # Errors
/// 429 or 503 if there is no memory for the first chunk, and errors while it is produced. A later failure aborts the body, so
/// that the client detects the truncation.
pub async fn in_chunks(
    buffers: &Buffers,
    client: Client,
    content_type: &'static str,
    mut chunks: impl Chunks,
    problem: impl Fn(StoreError) -> Problem,
) -> Result<Response, Problem> {
    let held = buffers.reserve(Holder::Client(client), CHUNK_BYTES).await.map_err(no_buffer)?;
    let (first, more) = chunks.next(0, &held).await.map_err(problem)?;
    Ok(begun(buffers, client, content_type, buffer(first, held), more.then_some(chunks)))
}

/// The same with a first chunk that is already produced; more may follow.
pub fn begun(
    buffers: &Buffers,
    client: Client,
    content_type: &'static str,
    first: Bytes,
    rest: Option<impl Chunks>,
) -> Response {
    let Some(chunks) = rest else { return ok(content_type, first) };
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let stream = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut response = warp::reply::stream(stream).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let budget = buffers.budget.clone();
    tokio::spawn(async move {
        let sending = send(chunks, first, (&budget, Holder::Client(client)), &sender);
        let whole = AssertUnwindSafe(sending).catch_unwind().await.unwrap_or(false);
        if !whole {
            let _ = sender.send(Err(Truncated)).await; // fails only if the client has disconnected
        }
    });
    response
}

/// Returns true if the body is complete, or if the client has disconnected; a panic has been logged by its hook.
async fn send(
    mut chunks: impl Chunks,
    mut chunk: Bytes,
    (budget, holder): (&Budget, Holder),
    sender: &mpsc::Sender<Result<Bytes, Truncated>>,
) -> bool {
    let mut more = true;
    loop {
        // Chunks are usually about as large as the previous one; reserving that capacity avoids repeated growth.
        let room = chunk.len() + chunk.len() / 8;
        // The next chunk is produced after the client has taken this one; otherwise a slow client would hold three of them.
        if sender.send(Ok(chunk)).await.is_err() || !more || sender.reserve().await.is_err() {
            return true;
        }
        let made = async {
            let held = budget.wait(holder, room, Instant::now() + REST_WAIT).await?;
            let next = chunks.next(room, &held).await;
            Ok::<_, Refused>(next.map(|(next, more)| (buffer(next, held), more)))
        };
        let made = tokio::select! {
            made = made => made,
            () = sender.closed() => return true, // dropping the chunk cancels its statement
        };
        match made {
            Err(refused) => {
                tracing::warn!(?refused, "a response was truncated: no memory for the rest of it");
                return false;
            }
            Ok(Ok((next, and_more))) => (chunk, more) = (next, and_more),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a response was truncated");
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use warp::http::HeaderMap;

    use super::*;

    /// Three chunks, unless the second fails.
    struct Counting {
        made: usize,
        second: fn() -> Result<bool, StoreError>,
    }

    impl Chunks for Counting {
        async fn next(&mut self, _room: usize, _held: &Reservation) -> Result<(Vec<u8>, bool), StoreError> {
            self.made += 1;
            let more = if self.made == 2 { (self.second)()? } else { self.made < 3 };
            Ok((vec![b'0' + u8::try_from(self.made).expect("few")], more))
        }
    }

    async fn body(second: fn() -> Result<bool, StoreError>) -> Option<Bytes> {
        let buffers = Buffers::new(Budget::new("test", CHUNK_BYTES, CHUNK_BYTES), Duration::ZERO);
        let chunks = Counting { made: 0, second };
        let answer = in_chunks(&buffers, Client::of(&HeaderMap::new()), "text/plain", chunks, |_| Problem::internal());
        let response = answer.await.expect("the first chunk is fine");
        response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes)
    }

    #[test]
    fn a_chunk_ends_at_its_size_or_when_no_memory_is_left() {
        let budget = Budget::new("test", 4 * CHUNK_BYTES, 4 * CHUNK_BYTES);
        let held = budget.take(Holder::Several, CHUNK_BYTES).expect("free");
        let short = Room { held: &held, bytes: 3 * CHUNK_BYTES };
        assert!(!short.is_full(ORDINARY_BYTES));
        assert_eq!(held.bytes(), CHUNK_BYTES, "an ordinary chunk reserves nothing more");
        assert!(!short.is_full(3 * CHUNK_BYTES - 1) && short.is_full(3 * CHUNK_BYTES));
        let long = Room { bytes: 8 * CHUNK_BYTES, ..short };
        assert!(!long.is_full(4 * CHUNK_BYTES) && long.is_full(4 * CHUNK_BYTES + 1));
    }

    #[tokio::test]
    async fn a_body_that_fails_midway_is_never_complete() {
        assert_eq!(body(|| Ok(true)).await.as_deref(), Some(b"123".as_slice()));
        assert_eq!(body(|| Ok(false)).await.as_deref(), Some(b"12".as_slice()));
        assert_eq!(body(|| Err(StoreError::Missing)).await, None);
        assert_eq!(body(|| panic!("on purpose")).await, None);
    }
}
