//! A successful response in the form in which it is stored.

use bytes::Bytes;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION};
use warp::reply::Response;

use crate::http::problem::Problem;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A successful response in the form in which it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 299.
    pub status: i16,
    /// The body's media type.
    pub content_type: String,
    /// The `Location` header.
    pub location: Option<String>,
    /// The `ETag` header.
    pub etag: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A response with this status and body.
    pub fn new(status: StatusCode, content_type: &str, body: Bytes) -> Self {
        let status = i16::try_from(status.as_u16()).expect("a status has three digits");
        Self { status, content_type: content_type.to_owned(), location: None, etag: None, body }
    }

    /// Converts it to a response; `replayed` states whether it is sent again.
    ///
    /// # Errors
    /// 500 when the stored values are not a valid response.
    pub fn into_response(self, replayed: bool) -> Result<Response, Problem> {
        let broken = || {
            tracing::error!("a stored response cannot be sent");
            Problem::internal()
        };
        let status = u16::try_from(self.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = Response::new(self.body.into());
        *response.status_mut() = status.ok_or_else(broken)?;
        let headers = [(CONTENT_TYPE, Some(self.content_type)), (LOCATION, self.location), (ETAG, self.etag)];
        for (name, text) in headers.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            response.headers_mut().insert(name, HeaderValue::try_from(text).map_err(|_| broken())?);
        }
        if replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }
}
