//! Every kind of problem that a client may meet, with its cause and its remedy, whoever makes it: the server or nginx.
//!
//! The pages below `/docs/problems/` and the OpenAPI document are written from here. A new [`Code`] does not compile
//! without its entry; nginx/problems.conf is compared with this file by a test.

use serde_json::Value;
use strum::IntoEnumIterator;

use super::problem::{Code, FieldError, ParameterError, Problem};

/// The id of a request in examples.
const REQUEST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A kind of problem.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, the last part of the problem's `type`.
    pub code: &'static str,
    /// The title in the document.
    pub title: &'static str,
    /// What has happened.
    pub cause: &'static str,
    /// What the client does about it.
    pub remedy: &'static str,
    /// Whether any request may meet it.
    pub anywhere: bool,
    /// Whether any request that changes something may meet it.
    pub with_writes: bool,
    /// Whether any request with a body may meet it.
    pub with_bodies: bool,
    /// Whether any request for what is not public may meet it.
    pub with_access: bool,
    /// Whether the answer says when to try again.
    pub retry_after: bool,
    /// The server's code; `None` when only nginx makes it.
    made_by: Option<Code>,
}

/// All kinds, by status and code.
pub fn all() -> impl Iterator<Item = Kind> {
    let mut kinds: Vec<Kind> = Code::iter().map(of).chain(BY_NGINX.iter().copied()).collect();
    kinds.sort_unstable_by_key(|kind| (kind.status, kind.code));
    kinds.into_iter()
}

/// The kind that a code stands for.
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
            "The key in the path is not a uuid.",
            "Take the uuid from a list, or from the Location header that a creation answered with.",
        ),
        Code::InvalidQuery => (
            "A parameter of the query string or of a form is unknown, missing, malformed or given twice.",
            "Each entry of errors names a parameter and says what it must be: correct those and send the request again.",
        ),
        Code::InvalidJson => (
            "The body is empty, is not UTF-8, is not JSON, is damaged gzip, or broke off before its end.",
            "The detail says at which line and column reading stopped. Send one JSON object, encoded as UTF-8.",
        ),
        Code::BadRequest => (
            "The request is not well-formed HTTP, or came over plain HTTP to the HTTPS port.",
            "The detail names the line at fault where it is known. Check the request line, the headers and the \
             percent-encoding of the URL; an HTTP library gets these right.",
        ),
        Code::UriTooLong => ("The request line is over 8 KiB.", "Shorten the query string."),
        Code::HeadersTooLarge => (
            "A header is over 8 KiB, all of them together are over 32 KiB, or there are more than 100.",
            "Send fewer or shorter headers; a pile of cookies is the usual cause. Proxies add about five.",
        ),
        Code::InvalidFields => (
            "The body is JSON, and some of its fields break their rules: wrong type, out of range, missing, unknown or given \
             twice.",
            "Each entry of errors points at a field (a JSON pointer, RFC 6901) and says what it must be. All faults are \
             listed, so one correction is enough.",
        ),
        Code::NotFound => (
            "Nothing is served at this path, or nothing has this key: it was deleted, or never existed.",
            "GET / lists the paths, and GET on a resource lists the keys that exist.",
        ),
        Code::MethodNotAllowed => (
            "The path exists, and this method does not apply to it.",
            "Use one of the methods that the Allow header lists.",
        ),
        Code::NotAcceptable => (
            "The Accept header names no media type in which this can be answered.",
            "Ask for one of the types that the detail lists, or leave the header out.",
        ),
        Code::InvalidHeader => (
            "A header of the request is not of the form that its standard gives it.",
            "The detail names the header and its form. An ETag is sent back as it came, with its quotes.",
        ),
        Code::Conflict => (
            "What is asked for does not fit the state of the resource: what is to be brought back is not deleted.",
            "Read the resource. To bring an earlier version of it back, name the version in the body.",
        ),
        Code::IdempotencyInFlight => (
            "The first request with this Idempotency-Key has not been answered yet.",
            "Wait as long as Retry-After says and send the same request again: its answer will be the first one's.",
        ),
        Code::IdempotencyKeyReused => (
            "This Idempotency-Key was used for another request: method, path, query, Content-Type and body must be the \
             same, byte by byte.",
            "Make a new key, such as a random uuid, for each request that is not a retry.",
        ),
        Code::PreconditionFailed => (
            "If-Match asked for another state of the resource: somebody has changed it since. Nothing was changed.",
            "Read the resource again, decide whether your change still makes sense, and send it with the new ETag.",
        ),
        Code::PreconditionRequired => (
            "This service takes a change only from those who say which state they have seen, so that nobody's change is lost.",
            "Read the resource first, and send its ETag as If-Match.",
        ),
        Code::RequestTimeout => (
            "The request did not arrive whole within the time allowed for it.",
            "Send it again without pauses. If the connection is slow, send less at once.",
        ),
        Code::BodyTooLarge => (
            "The body has more bytes than this service takes.",
            "Send less at once, or ask the operator to raise MAX_BODY_BYTES or BULK_MAX_BYTES.",
        ),
        Code::UnsupportedMediaType => (
            "The body's media type, given by Content-Type, is not one that is read here, or its Content-Encoding is not gzip.",
            "Send the body as one of the types that the detail lists, and name it in Content-Type; pack it with gzip or not at \
             all.",
        ),
        Code::MisdirectedRequest => (
            "The Host of the request is no name of this service. Any page can give its own name this machine's address (DNS \
             rebinding), so only local names and listed ones are answered.",
            "Use the service's own name or its address. The operator lists further names in ALLOWED_HOSTS.",
        ),
        Code::Unauthenticated => (
            "This needs a token, and the request has none; or its token is malformed, unknown, expired or revoked. Nothing was \
             done.",
            "Send Authorization: Bearer <token>. WWW-Authenticate says what is wrong with a token that was sent, and which \
             scope is needed. The operator makes tokens with `pycrudapi token create`; where there is an identity provider, the document that \
             resource_metadata names says which.",
        ),
        Code::InsufficientScope => (
            "The token of this request is good, and does not allow this. Nothing was done.",
            "Ask the operator for a token with the scope that WWW-Authenticate names.",
        ),
        Code::ForeignOrigin => (
            "The browser says that a page of another origin sent this, and that page may not change anything here. Nothing \
             was changed.",
            "Send it from a page of this service, or from a program. The operator lists pages that may in CORS_ALLOW_ORIGINS.",
        ),
        Code::TooManyRequests => (
            "More requests come from this principal, or more requests or connections from this client's address, than are \
             allowed; or those under way hold its share of the service's memory.",
            "Wait as long as Retry-After says, and send fewer at once; RateLimit says how many are left. The operator sets \
             PRINCIPAL_RATE_LIMIT, RATE_LIMIT, CONN_LIMIT and MEMORY_BUDGET.",
        ),
        Code::Internal => (
            "The server has a defect, and this request met it.",
            "Report it with the X-Request-Id of the answer, by which the operator finds the log line. Whether a change was \
             carried out is unknown: look before sending it again.",
        ),
        Code::Unavailable => (
            "The service cannot answer just now: its database does not answer, no connection to it was free in time, or the \
             service is starting or stopping. Nothing was changed.",
            "Wait as long as Retry-After says, then send the request again.",
        ),
        Code::OutcomeUnknown => (
            "A change was handed to the database, and the connection broke, a deadline passed, or the wait for a standby was \
             ended before the database confirmed it. It may or may not have been carried out.",
            "Look with GET whether it was before you send it again, and send If-Match with the ETag that you see: a change \
             that was carried out, or one of somebody else, is then not overwritten. A POST with an Idempotency-Key may be sent \
             again with the same key without looking: it is carried out once.",
        ),
    }
}

/// What nginx answers without asking the server.
const BY_NGINX: &[Kind] = &[
    by_nginx(
        (403, "forbidden", "Forbidden"),
        "This request is not allowed here.",
        "Ask the operator, if you think that it should be.",
    ),
    Kind {
        with_bodies: true,
        ..by_nginx(
            (411, "length-required", "Length Required"),
            "The request has a body, and says neither how long it is nor that it comes in chunks.",
            "Send Content-Length, or Transfer-Encoding: chunked.",
        )
    },
    by_nginx(
        (501, "not-implemented", "Not Implemented"),
        "The body comes in a transfer coding that is not known.",
        "Send it with Content-Length, or as chunked.",
    ),
    Kind {
        anywhere: true,
        retry_after: true,
        ..by_nginx(
            (502, "bad-gateway", "Bad Gateway"),
            "The server behind nginx cannot be reached, or broke off before it answered.",
            "Reads can be repeated after Retry-After. A change may or may not have been carried out: look with GET before you \
             send it again. A POST with an Idempotency-Key may be sent again with the same key.",
        )
    },
    Kind {
        anywhere: true,
        retry_after: true,
        ..by_nginx(
            (504, "gateway-timeout", "Gateway Timeout"),
            "The server behind nginx did not answer in time.",
            "Reads can be repeated after Retry-After. A change may or may not have been carried out: look with GET before you \
             send it again. A POST with an Idempotency-Key may be sent again with the same key.",
        )
    },
    by_nginx(
        (505, "version-not-supported", "HTTP Version Not Supported"),
        "The request line names a version of HTTP that is not spoken here.",
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
    /// A document such as clients get.
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
            // The last member and the end are added by errors.conf.
            .filter_map(|line| line.split_once("'{").and_then(|(_, rest)| rest.rsplit_once('\'')))
            .map(|(body, _)| serde_json::from_str(&format!("{{{body}}}")).expect("nginx's bodies are JSON"))
            .collect();
        assert!(bodies.len() > 15, "{NGINX}");
        let known: Vec<Kind> = all().collect();
        for body in &bodies {
            assert!(known.iter().any(|kind| body["code"] == kind.code), "{body} has no entry");
            // One code, one title, whoever makes it.
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
    fn codes_are_told_apart() {
        let mut codes: Vec<&str> = all().map(|kind| kind.code).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }
}
