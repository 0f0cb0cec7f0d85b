//! Helpers of single-row handlers: the key in the path, and a row as a response.

use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use super::context::Context;
use super::definition::Resource;
use super::row::Stored;
use crate::http::body::SMALL;
use crate::http::etag;
use crate::http::problem::{Code, Problem};
use crate::http::reply;

/// A response with a row and its `ETag`. A long row stays in the memory budget of lists until it is sent.
pub fn row_response(context: &Context, status: StatusCode, stored: Stored) -> Response {
    let Stored { document, version } = stored;
    let document = if document.len() > SMALL { context.buffers.hold(document) } else { document };
    etag::tagged(reply::json_bytes(status, document), version)
}

/// Refuses a request whose response is a row that may be long, while that budget is used up. Called before the row is read or
/// changed.
///
/// # Errors
/// 503.
pub fn expect_room(context: &Context) -> Result<(), Problem> {
    if context.store.has_long_rows() { context.buffers.expect_room() } else { Ok(()) }
}

/// Parses the key in a path.
///
/// # Errors
/// 400 when it is not a uuid.
pub fn parse_uuid(resource: &Resource, segment: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(segment).map_err(|_| Problem::new(Code::InvalidUuid, resource.invalid_uuid))
}
