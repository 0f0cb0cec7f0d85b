//! The kinds of problem, each with its status, code and title.

use strum::EnumIter;
use warp::http::StatusCode;

/// The kinds of problem: each has a stable code, which is also the last segment of its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter)]
pub enum Code {
    /// The last segment of the path is not a UUID.
    InvalidUuid,
    /// Parameters of the query string or of a form are invalid.
    InvalidQuery,
    /// The body is not JSON.
    InvalidJson,
    /// The request is not well-formed HTTP.
    BadRequest,
    /// The request line exceeds the limit.
    UriTooLong,
    /// The headers exceed the limit.
    HeadersTooLarge,
    /// Fields of the body are invalid.
    InvalidFields,
    /// The resource does not exist.
    NotFound,
    /// The path does not support the method.
    MethodNotAllowed,
    /// No offered media type is acceptable to the client.
    NotAcceptable,
    /// A header is malformed.
    InvalidHeader,
    /// The body took too long to arrive.
    RequestTimeout,
    /// The request conflicts with the state of the resource.
    Conflict,
    /// Another request with the same key is in progress.
    IdempotencyInFlight,
    /// The key was used before with a different request.
    IdempotencyKeyReused,
    /// The resource has a different version than the client expects.
    PreconditionFailed,
    /// The request must state the expected version.
    PreconditionRequired,
    /// The body exceeds the limit.
    BodyTooLarge,
    /// The media type of the body is not supported.
    UnsupportedMediaType,
    /// The request is for another host.
    MisdirectedRequest,
    /// Credentials are missing or invalid.
    Unauthenticated,
    /// The credentials lack the required scope.
    InsufficientScope,
    /// The page's origin may not write.
    ForeignOrigin,
    /// The client or principal has exceeded its limit.
    TooManyRequests,
    /// The server has a bug.
    Internal,
    /// The service is temporarily unavailable, and nothing was changed.
    Unavailable,
    /// It is unknown whether a change was made.
    OutcomeUnknown,
}

impl Code {
    /// The status, the code in the document, and the title.
    pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidUuid => (StatusCode::BAD_REQUEST, "invalid-uuid", "Invalid UUID in the path"),
            Self::InvalidQuery => (StatusCode::BAD_REQUEST, "invalid-query", "Invalid parameters"),
            Self::InvalidJson => (StatusCode::BAD_REQUEST, "invalid-json", "The body is not JSON"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "Bad Request"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "URI Too Long"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "Request Header Fields Too Large")
            }
            Self::InvalidFields => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "Invalid fields"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable"),
            Self::InvalidHeader => (StatusCode::BAD_REQUEST, "invalid-header", "A header is malformed"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Conflict with the state of the resource"),
            Self::IdempotencyInFlight => {
                (StatusCode::CONFLICT, "idempotency-in-flight", "The first request is still in progress")
            }
            Self::IdempotencyKeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for a different request")
            }
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "precondition-failed", "The resource has a different version")
            }
            Self::PreconditionRequired => {
                (StatusCode::PRECONDITION_REQUIRED, "precondition-required", "If-Match is required")
            }
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request took too long"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::MisdirectedRequest => (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "Unknown host name"),
            Self::Unauthenticated => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "Credentials are missing or invalid")
            }
            Self::InsufficientScope => {
                (StatusCode::FORBIDDEN, "insufficient-scope", "The credentials lack the required scope")
            }
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "foreign-origin", "Cross-origin writes are not allowed"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too Many Requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::OutcomeUnknown => (StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", "The outcome is unknown"),
        }
    }
}
