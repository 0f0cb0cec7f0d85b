//! The kinds of problem, each with its status, its code and its title.

use strum::EnumIter;
use warp::http::StatusCode;

/// The kinds of problem: each has a stable code, which is also the last part of its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter)]
pub enum Code {
    /// The path's last part is no uuid.
    InvalidUuid,
    /// Parameters of the query string or of a form are at fault.
    InvalidQuery,
    /// The body is no JSON.
    InvalidJson,
    /// What came cannot be read as an HTTP request.
    BadRequest,
    /// The request line is over the limit.
    UriTooLong,
    /// The headers are over the limit.
    HeadersTooLarge,
    /// Fields of the body are at fault.
    InvalidFields,
    /// Nothing is there.
    NotFound,
    /// The method does not apply to the path.
    MethodNotAllowed,
    /// No media type on offer is one the client takes.
    NotAcceptable,
    /// A header is malformed.
    InvalidHeader,
    /// The body took too long to arrive.
    RequestTimeout,
    /// What is asked for does not fit the state of the resource.
    Conflict,
    /// A request with the same key is at work.
    IdempotencyInFlight,
    /// A key came with another request than the first time.
    IdempotencyKeyReused,
    /// What is to be changed has another version than the client asked for.
    PreconditionFailed,
    /// A change must say which version it is for.
    PreconditionRequired,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body's media type is not one of those taken.
    UnsupportedMediaType,
    /// The request asks for another host.
    MisdirectedRequest,
    /// Credentials are missing or prove nothing.
    Unauthenticated,
    /// The credentials do not allow this.
    InsufficientScope,
    /// A page of another origin may not change anything.
    ForeignOrigin,
    /// The client holds or asks for more than its share.
    TooManyRequests,
    /// A defect of the server.
    Internal,
    /// The database does not answer now, and nothing was changed.
    Unavailable,
    /// Whether a change was carried out is not known.
    OutcomeUnknown,
}

impl Code {
    /// The status, the code in the document, and its title.
    pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidUuid => (StatusCode::BAD_REQUEST, "invalid-uuid", "The path names no uuid"),
            Self::InvalidQuery => (StatusCode::BAD_REQUEST, "invalid-query", "Parameters are at fault"),
            Self::InvalidJson => (StatusCode::BAD_REQUEST, "invalid-json", "The body is not JSON"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "Bad Request"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "URI Too Long"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "Request Header Fields Too Large")
            }
            Self::InvalidFields => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Fields are at fault"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable"),
            Self::InvalidHeader => (StatusCode::BAD_REQUEST, "invalid-header", "A header is malformed"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The state does not allow it"),
            Self::IdempotencyInFlight => {
                (StatusCode::CONFLICT, "idempotency-in-flight", "The first attempt is still at work")
            }
            Self::IdempotencyKeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key stands for another request")
            }
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "precondition-failed", "The resource has another version")
            }
            Self::PreconditionRequired => {
                (StatusCode::PRECONDITION_REQUIRED, "precondition-required", "If-Match is required")
            }
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request took too long"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::MisdirectedRequest => {
                (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "The host name is not this service's")
            }
            Self::Unauthenticated => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "Credentials are missing or invalid")
            }
            Self::InsufficientScope => {
                (StatusCode::FORBIDDEN, "insufficient-scope", "The credentials do not allow this")
            }
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign-origin", "A page of another origin may not write"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too Many Requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::OutcomeUnknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", "The outcome is unknown"),
        }
    }
}
