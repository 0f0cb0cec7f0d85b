//! Building answers: JSON, whole or streamed.

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

/// Why a streamed answer ends early; the connection is cut, so the client sees that the body is not whole.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the body could not be read")]
pub struct Truncated;

/// Finished pieces that may wait for a slow client, besides the one being made.
const PIECES_AHEAD: usize = 1;

/// Answers 200 with a value as JSON.
pub fn json(value: &impl Serialize) -> Response {
    json_bytes(StatusCode::OK, serde_json::to_vec(value).expect("our types have string keys only"))
}

/// Answers with a body that is JSON already.
pub fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A streamed answer and the end into which its pieces are sent.
///
/// The sender waits while the client is slow, and fails once the client has gone.
pub fn streamed(content_type: &'static str) -> (mpsc::Sender<Result<Bytes, Truncated>>, Response) {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let pieces = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut response = warp::reply::stream(pieces).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, response)
}
