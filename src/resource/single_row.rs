//! Helpers of single-row handlers: the key in the path, and a row as a response.

use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use super::definition::Resource;
use super::row::Stored;
use crate::http::etag;
use crate::http::problem::{Code, Problem};
use crate::http::reply;

/// A response with a row and its `ETag`.
pub fn row_response(status: StatusCode, stored: Stored) -> Response {
    etag::tagged(reply::json_bytes(status, stored.document), stored.version)
}

/// Parses the key in a path.
///
/// # Errors
/// 400 when it is not a uuid.
pub fn parse_uuid(resource: &Resource, segment: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(segment).map_err(|_| Problem::new(Code::InvalidUuid, resource.invalid_uuid))
}
