//! The id of a request: the same in its answer, in logs, in its span, in what it changes, and in a problem of it.

use warp::http::HeaderMap;
use warp::http::header::{HeaderName, HeaderValue};

/// The header with it. In front of all routes each request that may change something gets one if it has none that can be logged.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request with these headers.
pub fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).cloned()
}
