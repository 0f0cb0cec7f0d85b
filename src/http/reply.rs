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
    /// Appends the next piece, which may be empty; whether there may be more after it.
    fn next(&mut self, out: &mut Vec<u8>) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Answers 200 with all pieces. What fits into one is answered whole, with its length; more is streamed, each piece made
/// when the client has taken the one before, so nothing but memory for two is held for a client that is slow.
///
/// # Errors
/// What the first piece meets. A later failure aborts the body, so that the client sees that it is not whole.
pub async fn in_pieces(content_type: &'static str, mut pieces: impl Pieces) -> Result<Response, StoreError> {
    let mut first = Vec::new();
    if !pieces.next(&mut first).await? {
        return Ok(ok(content_type, first));
    }
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
    Ok(response)
}

/// Whether the body has its end, or nobody is left to read it; a panic has been logged by its hook.
async fn send(mut pieces: impl Pieces, first: Vec<u8>, sender: &mpsc::Sender<Result<Bytes, Truncated>>) -> bool {
    let mut piece = first;
    let mut more = true;
    loop {
        // Pieces are of about the same size; room for one at once spares the allocator every size below.
        let room = piece.len() + piece.len() / 8;
        let full = std::mem::replace(&mut piece, Vec::with_capacity(room));
        if sender.send(Ok(full.into())).await.is_err() || !more {
            return true;
        }
        // The connection of the last piece is free again, and a request that waits for one has been woken; without this
        // pause we would take it back before that request runs, piece after piece.
        tokio::task::yield_now().await;
        match pieces.next(&mut piece).await {
            Ok(next) => more = next,
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
        async fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, StoreError> {
            self.made += 1;
            out.push(b'0' + u8::try_from(self.made).expect("few"));
            if self.made == 2 { (self.second)() } else { Ok(self.made < 3) }
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
