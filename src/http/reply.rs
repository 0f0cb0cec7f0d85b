//! Building answers: whole, or streamed piece by piece.

use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use crate::db::error::StoreError;

/// Why a streamed answer ends early.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the body could not be read")]
struct Truncated;

/// Room for the headers that most answers have, so that their map does not grow on the way.
const HEADERS: usize = 10;

/// Finished pieces that may wait for a slow client, besides the one being made.
const PIECES_AHEAD: usize = 1;

/// Answers 200 with a value as JSON.
pub fn json(value: &impl Serialize) -> Response {
    json_bytes(StatusCode::OK, serde_json::to_vec(value).expect("our types have string keys only"))
}

/// Answers with a body that is JSON already.
pub fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = ok("application/json", body);
    *response.status_mut() = status;
    response
}

/// Answers 200 with a body of some type.
pub fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    response.headers_mut().reserve(HEADERS);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A long answer, made piece by piece.
pub trait Pieces: Send + 'static {
    /// The next piece, which may be empty, and whether there may be more after it; `room` is how long it is likely to be.
    fn next(&mut self, room: usize) -> impl Future<Output = Result<(Vec<u8>, bool), StoreError>> + Send;
}

/// Answers 200 with all pieces. What fits into one is answered whole, with its length; more is streamed, each piece made
/// when the client has taken the one before, so nothing but memory for two is held for a client that is slow.
///
/// # Errors
/// What the first piece meets. A later failure aborts the body, so that the client sees that it is not whole.
pub async fn in_pieces(content_type: &'static str, mut pieces: impl Pieces) -> Result<Response, StoreError> {
    let (first, more) = pieces.next(0).await?;
    Ok(begun(content_type, first.into(), more.then_some(pieces)))
}

/// The same when the first piece is made already; there may be a rest.
pub fn begun(content_type: &'static str, first: Bytes, rest: Option<impl Pieces>) -> Response {
    let Some(pieces) = rest else { return ok(content_type, first) };
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let stream = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut response = warp::reply::stream(stream).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    tokio::spawn(async move {
        let whole = AssertUnwindSafe(send(pieces, first, &sender)).catch_unwind().await.unwrap_or(false);
        if !whole {
            let _ = sender.send(Err(Truncated)).await; // fails only if the client has gone
        }
    });
    response
}

/// Whether the body has its end, or nobody is left to read it; a panic has been logged by its hook.
async fn send(mut pieces: impl Pieces, mut piece: Bytes, sender: &mpsc::Sender<Result<Bytes, Truncated>>) -> bool {
    let mut more = true;
    loop {
        // Most pieces are of about the size of the one before; room at once spares the allocator every size below.
        let room = piece.len() + piece.len() / 8;
        // The next piece is made when the client has taken this one, or a slow client would hold three of them.
        if sender.send(Ok(piece)).await.is_err() || !more || sender.reserve().await.is_err() {
            return true;
        }
        let made = tokio::select! {
            made = pieces.next(room) => made,
            () = sender.closed() => return true, // dropping the piece cancels its statement
        };
        match made {
            Ok((next, and_more)) => (piece, more) = (next.into(), and_more),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an answer was cut short");
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Three pieces, unless the second fails.
    struct Counting {
        made: usize,
        second: fn() -> Result<bool, StoreError>,
    }

    impl Pieces for Counting {
        async fn next(&mut self, _room: usize) -> Result<(Vec<u8>, bool), StoreError> {
            self.made += 1;
            let more = if self.made == 2 { (self.second)()? } else { self.made < 3 };
            Ok((vec![b'0' + u8::try_from(self.made).expect("few")], more))
        }
    }

    async fn body(second: fn() -> Result<bool, StoreError>) -> Option<Bytes> {
        let response = in_pieces("text/plain", Counting { made: 0, second }).await.expect("the first piece is fine");
        response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_body_that_fails_midway_never_looks_whole() {
        assert_eq!(body(|| Ok(true)).await.as_deref(), Some(b"123".as_slice()));
        assert_eq!(body(|| Ok(false)).await.as_deref(), Some(b"12".as_slice()));
        assert_eq!(body(|| Err(StoreError::Missing)).await, None);
        assert_eq!(body(|| panic!("on purpose")).await, None);
    }
}
