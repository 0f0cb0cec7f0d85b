//! Errors as the client reads them: `application/problem+json` of RFC 9457.
//!
//! The one place that turns a [`StoreError`] into an HTTP answer. A problem's text says what to do; it never carries a
//! driver's message, SQL or an address. What the log reads is another text, written here when the problem is made.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::http::HeaderName;
use warp::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use warp::reply::Response;

pub use super::code::Code;
use crate::db::error::StoreError;

/// What a client is told to wait, in seconds, before it tries again.
const RETRY_AFTER_SECONDS: &str = "1";

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of fault are told apart by their members
pub struct FieldError {
    /// Where the fault is: a JSON pointer (RFC 6901) into the body; empty for the body as a whole.
    pub pointer: String,
    /// What the field must be.
    pub detail: Cow<'static, str>,
}

impl FieldError {
    /// A fault of one field of the top-level object.
    pub fn new(field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        // RFC 6901, section 3: `~` and `/` are escaped in a reference token.
        let token = field.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{token}"), detail: detail.into() }
    }
}

/// One parameter of the query string or of a form at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of fault are told apart by their members
pub struct ParameterError {
    /// The parameter's name.
    pub parameter: String,
    /// What the parameter must be.
    pub detail: Cow<'static, str>,
}

impl ParameterError {
    /// A fault of one parameter.
    pub fn new(parameter: String, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter, detail: detail.into() }
    }
}

/// One fault of a row in a body that holds many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of fault are told apart by their members
pub struct RowError {
    /// The line of the body on which the row begins, counted from 1.
    pub line: u64,
    /// The field; empty for the row as a whole.
    pub field: String,
    /// Where that is in a JSON array: a JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// What it must be.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
}

/// Everything at fault, in the order it was found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ProblemErrors)]
enum Faults {
    /// Fields of the body.
    Fields(Vec<FieldError>),
    /// Parameters of the query string or of a form.
    Parameters(Vec<ParameterError>),
    /// Rows of a body that holds many.
    Rows(Vec<RowError>),
}

/// A problem on its way to the client.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Option<Faults>,
    headers: Vec<(HeaderName, Cow<'static, str>)>,
    checks: Option<Box<serde_json::Value>>,
}

/// An error (RFC 9457); the members are in the order in which it lists them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// The URL of a page that explains this kind of problem, relative to the host.
    #[schema(format = "uri-reference")]
    r#type: String,
    /// What kind of problem it is, in a few words.
    title: &'a str,
    /// The HTTP status, again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The stable name of this kind of problem, for programs.
    code: &'a str,
    /// What to do about this one, for people; may change.
    detail: &'a str,
    /// The id of the request, as in `X-Request-Id`, in the logs and in the history of what it changed.
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: &'a Option<Faults>,
    /// The outcome of each readiness check, where readiness was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, nullable = false)]
    checks: &'a Option<Box<serde_json::Value>>,
}

impl Problem {
    /// A problem whose `detail` tells the client what to do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: None, headers: Vec::new(), checks: None }
    }

    /// Fields are at fault: all of them, not the first.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is at fault; correct it and send the request again".to_owned(),
            n => format!("{n} fields are at fault; correct them and send the request again"),
        };
        Self { errors: Some(Faults::Fields(errors)), ..Self::new(Code::InvalidFields, detail) }
    }

    /// Rows are at fault: the first of the faults, and how many there are in how many rows.
    pub fn rows(listed: Vec<RowError>, faults: u64, rows: u64) -> Self {
        let all = if faults > listed.len() as u64 {
            format!("; the first {} are listed", listed.len())
        } else {
            String::new()
        };
        let counted = |count: u64, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
        let (faults, rows) = (counted(faults, "fault"), counted(rows, "row"));
        let detail = format!("{faults} in {rows}{all}; nothing was stored, correct them and send all again");
        Self { errors: Some(Faults::Rows(listed)), ..Self::new(Code::InvalidFields, detail) }
    }

    /// Parameters are at fault: all of them, each named in the detail too, for people who read no further.
    pub fn parameters(errors: Vec<ParameterError>) -> Self {
        let named: Vec<String> = errors.iter().map(|error| format!("{} {}", error.parameter, error.detail)).collect();
        Self { errors: Some(Faults::Parameters(errors)), ..Self::new(Code::InvalidQuery, named.join("; ")) }
    }

    /// The method does not apply; `allow` lists those that do.
    pub fn method_not_allowed(allow: String) -> Self {
        Self::new(Code::MethodNotAllowed, format!("use one of: {allow}")).with_header(ALLOW, allow)
    }

    /// Somebody else has changed the resource, or the client asked for a state that it is not in.
    pub fn stale() -> Self {
        Self::new(
            Code::PreconditionFailed,
            "the resource has another version than If-Match and If-None-Match ask for; read it again, and repeat the \
             change with its new ETag if it still applies",
        )
    }

    /// Whether this is a problem of that kind.
    pub fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The service cannot answer now and asks the client to come back.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// Nobody can say whether a change was carried out. Without `Retry-After`, which HTTP clients take for leave to send
    /// the request again.
    fn outcome_unknown() -> Self {
        Self::new(
            Code::OutcomeUnknown,
            "the change was handed to the database, which did not say whether it was carried out; look with GET before you \
             send it again. A POST with an Idempotency-Key may be sent again without looking",
        )
    }

    /// The request has an `Idempotency-Key`, so it may be sent again even when its outcome is not known.
    pub fn with_key(self) -> Self {
        if !self.is(Code::OutcomeUnknown) {
            return self;
        }
        let detail = "the change was handed to the database, which did not say whether it was carried out; send the request \
                      again with the same Idempotency-Key, which is safe and tells, or look with GET";
        Self::new(Code::OutcomeUnknown, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// The client is to come back with less at once.
    pub fn too_many(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// Adds to the detail what may be behind it.
    pub fn with_hint(self, hint: &str) -> Self {
        Self { detail: format!("{}; {hint}", self.detail).into(), ..self }
    }

    /// Adds the outcome of each readiness check, an extension member (RFC 9457, section 3.2).
    pub fn with_checks(self, checks: &impl Serialize) -> Self {
        Self { checks: serde_json::to_value(checks).ok().map(Box::new), ..self }
    }

    /// The document about the request with this id.
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        let (status, code, title) = self.code.parts();
        let document = Document {
            r#type: format!("/docs/problems/{code}"),
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            request_id,
            errors: &self.errors,
            checks: &self.checks,
        };
        serde_json::to_vec(&document).expect("strings and numbers always serialise")
    }

    /// The answer; [`write()`] adds the document in front of all routes, where the request's id is known.
    pub fn into_response(mut self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.code.parts().0;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // RFC 9110, section 15.1: caches may keep a 404, 405, 410, 414 or 501 unless they are told otherwise.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in std::mem::take(&mut self.headers) {
            let value = HeaderValue::try_from(&*value).expect("headers of problems are printable");
            headers.insert(name, value);
        }
        response.extensions_mut().insert(Unwritten(Arc::new(self)));
        response
    }
}

/// The problem of an answer whose document is still to be written, kept in its extensions.
#[derive(Clone)]
struct Unwritten(Arc<Problem>);

/// Writes the document of an answer that is a problem.
pub fn write<B: From<Vec<u8>>>(answer: &mut warp::http::Response<B>, request_id: &str) {
    if let Some(Unwritten(problem)) = answer.extensions_mut().remove() {
        *answer.body_mut() = problem.to_json(request_id).into();
    }
}

impl Problem {
    /// Translates a failed store operation; `missing` is what a 404 says, `constraint` finds the field of a violation.
    pub fn from_store(
        error: &StoreError,
        missing: &'static str,
        constraint: impl Fn(&str) -> Option<FieldError>,
    ) -> Self {
        match error {
            StoreError::Missing => return Self::new(Code::NotFound, missing),
            StoreError::Stale => return Self::stale(),
            StoreError::Unavailable { .. } => {
                tracing::warn!(error = error as &dyn Error, "store unavailable");
                return Self::unavailable(
                    "the database does not answer at the moment, and nothing was changed; send the request again",
                );
            }
            StoreError::OutcomeUnknown { .. } => {
                tracing::warn!(error = error as &dyn Error, "outcome of a change unknown");
                return Self::outcome_unknown();
            }
            StoreError::Conflict { constraint: name } => {
                if let Some(field) = constraint(name) {
                    return Self::fields(vec![field]);
                }
            }
            StoreError::Unreadable { .. } | StoreError::Internal(_) => {}
        }
        tracing::error!(error = error as &dyn Error, "unexpected store error");
        Self::internal()
    }

    /// A defect of the server; whoever makes it has logged the cause.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the server failed to handle this request; report it with its X-Request-Id")
    }
}
