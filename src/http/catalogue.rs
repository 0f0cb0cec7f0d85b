//! Every kind of problem that a client may receive, from the server or from nginx, with its cause and its remedy.
//!
//! The pages under `/docs/problems/` and the OpenAPI document are generated from this catalogue. A new [`Code`] does not
//! compile without its entry; a test compares nginx/problems.conf with this file.

use serde_json::Value;
use strum::IntoEnumIterator;

use super::problem::{Code, FieldError, ParameterError, Problem};

/// The request id in examples.
const REQUEST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A kind of problem.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, the last part of the problem's `type`.
    pub code: &'static str,
    /// The title of the problem document.
    pub title: &'static str,
    /// What happened.
    pub cause: &'static str,
    /// What the client should do.
    pub remedy: &'static str,
    /// Whether any request may fail with it.
    pub anywhere: bool,
    /// Whether any request with an unsafe method may fail with it.
    pub with_writes: bool,
    /// Whether any request with a body may fail with it.
    pub with_bodies: bool,
    /// Whether any request for a protected route may fail with it.
    pub with_access: bool,
    /// Whether the response has `Retry-After`.
    pub retry_after: bool,
    /// The server's code; `None` if only nginx responds with it.
    made_by: Option<Code>,
}

/// All kinds, by status and code.
pub fn all() -> impl Iterator<Item = Kind> {
    let mut kinds: Vec<Kind> = Code::iter().map(of).chain(BY_NGINX.iter().copied()).collect();
    kinds.sort_unstable_by_key(|kind| (kind.status, kind.code));
    kinds.into_iter()
}

/// The kind of a code.
pub fn of(code: Code) -> Kind {
    let (status, name, title) = code.parts();
    let (cause, remedy) = explanation(code);
    Kind {
        status: status.as_u16(),
        code: name,
        title,
        cause,
        remedy,
        anywhere: matches!(
            code,
            Code::InvalidQuery
                | Code::InvalidHeader
                | Code::BadRequest
                | Code::UriTooLong
                | Code::HeadersTooLarge
                | Code::MisdirectedRequest
                | Code::TooManyRequests
                | Code::Internal
                | Code::Unavailable
        ),
        with_writes: matches!(code, Code::ForeignOrigin | Code::OutcomeUnknown),
        with_access: matches!(code, Code::Unauthenticated | Code::InsufficientScope),
        with_bodies: matches!(code, Code::BodyTooLarge | Code::RequestTimeout | Code::UnsupportedMediaType),
        retry_after: matches!(code, Code::TooManyRequests | Code::Unavailable | Code::IdempotencyInFlight),
        made_by: Some(code),
    }
}

/// Cause and remedy.
fn explanation(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::InvalidUuid => (
            "The last segment of the path is not a valid UUID.",
            "Use a UUID from a list or from the Location header of the response that created the row.",
        ),
        Code::InvalidQuery => (
            "A parameter of the query string or of a form is unknown, missing, malformed or duplicated.",
            "Each entry of errors names a parameter and states what it must be. Correct these parameters and send the \
             request again.",
        ),
        Code::InvalidJson => (
            "The body is empty, is not UTF-8, is not JSON, is corrupt gzip, or is incomplete.",
            "The detail states the line and column of the error. Send one JSON object, encoded as UTF-8.",
        ),
        Code::BadRequest => (
            "The request is not well-formed HTTP, or is plain HTTP sent to the HTTPS port.",
            "The detail names the invalid line if it is known. Check the request line, the headers and the \
             percent-encoding of the URL, or use an HTTP library.",
        ),
        Code::UriTooLong => ("The request line exceeds 8 KiB.", "Shorten the query string."),
        Code::HeadersTooLarge => (
            "A header exceeds 8 KiB, all headers together exceed 32 KiB, or there are more than 100.",
            "Send fewer or shorter headers; too many cookies are the usual cause. Proxies add about five headers.",
        ),
        Code::InvalidFields => (
            "The body is JSON, but some of its fields are invalid: of the wrong type, out of range, missing, unknown \
             or duplicated.",
            "Each entry of errors points to a field (a JSON pointer, RFC 6901) and states what it must be. All errors \
             are listed, so one correction is enough.",
        ),
        Code::NotFound => (
            "Nothing is served at this path, or no row has this key: it was deleted or never existed.",
            "GET / lists the paths, and GET on a resource lists the existing keys.",
        ),
        Code::MethodNotAllowed => {
            ("The path exists but does not support this method.", "Use one of the methods that the Allow header lists.")
        }
        Code::NotAcceptable => (
            "The Accept header allows no media type that is available for this response.",
            "Request one of the types that the detail lists, or omit the header.",
        ),
        Code::InvalidHeader => (
            "A header of the request does not have the syntax that its standard requires.",
            "The detail names the header and the expected syntax. Send an ETag exactly as received, including its \
             quotes.",
        ),
        Code::Conflict => (
            "The request conflicts with the state of the resource: the row to be restored is not deleted.",
            "Read the resource. To restore an earlier version of it, name the version in the body.",
        ),
        Code::IdempotencyInFlight => (
            "The first request with this Idempotency-Key is still in progress.",
            "Wait for the time in Retry-After and send the same request again: it returns the response to the first \
             one.",
        ),
        Code::IdempotencyKeyReused => (
            "This Idempotency-Key was used for a different request: method, path, query, Content-Type and body must \
             be identical, byte by byte.",
            "Use a new key, such as a random UUID, for each request that is not a retry.",
        ),
        Code::PreconditionFailed => (
            "If-Match does not match the current version of the resource: it was changed since it was read. Nothing \
             was changed.",
            "Read the resource again, check whether the change still applies, and send it with the new ETag.",
        ),
        Code::PreconditionRequired => (
            "This service requires each change to state the version that it is based on, so that no concurrent change \
             is overwritten.",
            "Read the resource first and send its ETag as If-Match.",
        ),
        Code::RequestTimeout => (
            "The request was not received completely within the time limit.",
            "Send it again without pauses. On a slow connection, send less at a time.",
        ),
        Code::BodyTooLarge => (
            "The body exceeds the size limit.",
            "Send less at a time, or ask the operator to raise MAX_BODY_BYTES or BULK_MAX_BYTES.",
        ),
        Code::UnsupportedMediaType => (
            "The media type of the body, given by Content-Type, is not supported here, or its Content-Encoding is not \
             gzip.",
            "Send the body as one of the types that the detail lists, with that Content-Type, and compress it with \
             gzip or not at all.",
        ),
        Code::MisdirectedRequest => (
            "The Host of the request is not a name of this service. A malicious page can resolve its own name to this \
             machine's address (DNS rebinding), so only local and listed names are accepted.",
            "Use the service's own name or its address. The operator can list further names in ALLOWED_HOSTS.",
        ),
        Code::Unauthenticated => (
            "The request requires a token and has none, or its token is malformed, unknown, expired or revoked. \
             Nothing was done.",
            "Send Authorization: Bearer <token>. WWW-Authenticate states what is wrong with a token that was sent, \
             and which scope is required. The operator creates tokens with `pycrudapi token create`; if there is an \
             identity provider, the document at the URL in resource_metadata names it.",
        ),
        Code::InsufficientScope => (
            "The token of this request is valid but lacks the required scope. Nothing was done.",
            "Ask the operator for a token with the scope that WWW-Authenticate names.",
        ),
        Code::ForeignOrigin => (
            "According to the browser, a page of another origin sent this request, and that origin may not change \
             anything here. Nothing was changed.",
            "Send it from a page of this service, or from a program. The operator can list allowed origins in \
             CORS_ALLOW_ORIGINS.",
        ),
        Code::TooManyRequests => (
            "This principal has sent too many requests, or this client's address too many requests or connections; or \
             its requests in progress use its share of the service's memory.",
            "Wait for the time in Retry-After and send fewer requests at a time; RateLimit states how many are left. \
             The operator sets PRINCIPAL_RATE_LIMIT, RATE_LIMIT, CONN_LIMIT and MEMORY_BUDGET.",
        ),
        Code::Internal => (
            "The request triggered a bug in the server.",
            "Report it with the X-Request-Id of the response, by which the operator finds the log line. It is unknown \
             whether a change was made: check before sending it again.",
        ),
        Code::Unavailable => (
            "The service is temporarily unavailable: its database does not respond, no connection to it was free in \
             time, or the service is starting or stopping. Nothing was changed.",
            "Wait for the time in Retry-After, then send the request again.",
        ),
        Code::OutcomeUnknown => (
            "A change was sent to the database, but the connection broke, a deadline passed, or the wait for a \
             standby was cancelled before the database confirmed it. It may or may not have been made.",
            "Check with GET whether it was made before you send it again, and send If-Match with the current ETag, so \
             that neither your change nor a concurrent one is overwritten. A POST with an Idempotency-Key may be sent \
             again with the same key without a check: it is executed once.",
        ),
    }
}

/// Problems that only nginx responds with.
const BY_NGINX: &[Kind] = &[
    by_nginx(
        (403, "forbidden", "Forbidden"),
        "This request is not allowed here.",
        "Ask the operator if you think that it should be allowed.",
    ),
    Kind {
        with_bodies: true,
        ..by_nginx(
            (411, "length-required", "Length Required"),
            "The request has a body but states neither its length nor that it is chunked.",
            "Send Content-Length, or Transfer-Encoding: chunked.",
        )
    },
    by_nginx(
        (501, "not-implemented", "Not Implemented"),
        "The transfer coding of the body is unknown.",
        "Send it with Content-Length, or with Transfer-Encoding: chunked.",
    ),
    Kind {
        anywhere: true,
        retry_after: true,
        ..by_nginx(
            (502, "bad-gateway", "Bad Gateway"),
            "nginx cannot reach the server, or the server closed the connection before it responded.",
            "Reads can be repeated after Retry-After. A change may or may not have been made: check with GET before \
             you send it again. A POST with an Idempotency-Key may be sent again with the same key.",
        )
    },
    Kind {
        anywhere: true,
        retry_after: true,
        ..by_nginx(
            (504, "gateway-timeout", "Gateway Timeout"),
            "The server did not respond to nginx in time.",
            "Reads can be repeated after Retry-After. A change may or may not have been made: check with GET before \
             you send it again. A POST with an Idempotency-Key may be sent again with the same key.",
        )
    },
    by_nginx(
        (505, "version-not-supported", "HTTP Version Not Supported"),
        "The HTTP version in the request line is not supported.",
        "Use HTTP/1.1 or HTTP/2.",
    ),
];

const fn by_nginx(
    (status, code, title): (u16, &'static str, &'static str),
    cause: &'static str,
    remedy: &'static str,
) -> Kind {
    Kind {
        status,
        code,
        title,
        cause,
        remedy,
        anywhere: false,
        with_writes: false,
        with_access: false,
        with_bodies: false,
        retry_after: false,
        made_by: None,
    }
}

impl Kind {
    /// An example document.
    pub fn example(&self) -> Value {
        let problem = match self.made_by {
            Some(Code::InvalidFields) => {
                Problem::fields(vec![FieldError::new("age", "must be between 0 and 130, or null")])
            }
            Some(Code::InvalidQuery) => Problem::parameters(vec![ParameterError::new(
                "limit".to_owned(),
                "must be a whole number between 1 and 1000",
            )]),
            Some(code) => Problem::new(code, self.remedy),
            None => return self.example_of_nginx(),
        };
        serde_json::from_slice(&problem.to_json(REQUEST)).expect("it was just written")
    }

    fn example_of_nginx(&self) -> Value {
        serde_json::json!({
            "type": format!("/docs/problems/{}", self.code),
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.remedy,
            "requestId": REQUEST,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NGINX: &str = include_str!("../../nginx/problems.conf");

    #[test]
    fn every_problem_that_nginx_makes_is_explained() {
        let bodies: Vec<Value> = NGINX
            .lines()
            // errors.conf adds the last member and the closing brace.
            .filter_map(|line| line.split_once("'{").and_then(|(_, rest)| rest.rsplit_once('\'')))
            .map(|(body, _)| serde_json::from_str(&format!("{{{body}}}")).expect("nginx's bodies are JSON"))
            .collect();
        assert!(bodies.len() > 15, "{NGINX}");
        let known: Vec<Kind> = all().collect();
        for body in &bodies {
            assert!(known.iter().any(|kind| body["code"] == kind.code), "{body} has no entry");
            // The server and nginx use the same title for the same code.
            let known = known.iter().find(|kind| body["code"] == kind.code && kind.made_by.is_some());
            assert!(known.is_none_or(|kind| body["title"] == kind.title), "{body}");
            assert_eq!(body["type"], format!("/docs/problems/{}", body["code"].as_str().expect("a text")));
        }
        for kind in BY_NGINX {
            let same = |body: &&Value| body["code"] == kind.code && body["title"] == kind.title;
            assert!(bodies.iter().any(|body| same(&body)), "nginx makes no {}", kind.code);
        }
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<&str> = all().map(|kind| kind.code).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
