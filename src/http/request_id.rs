//! The id of a request, which is the same in the response, logs, the span, history entries and problems.

use warp::http::HeaderMap;
use warp::http::header::{HeaderName, HeaderValue};

/// The header with the id. The server adds one to each unsafe request that has none that can be logged.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request with these headers.
pub fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).cloned()
}
