//! Error responses: `application/problem+json` of RFC 9457.
//!
//! Only this module converts a [`StoreError`] to an HTTP response. A problem's text states what to do; it never contains a
//! driver's message, SQL or an address. The log gets a separate text, written here when the problem is created.

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

/// The seconds that clients must wait before they retry.
const RETRY_AFTER_SECONDS: &str = "1";

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of error are distinguished by their members
pub struct FieldError {
    /// The location of the error: a JSON pointer (RFC 6901) into the body; empty for the whole body.
    pub pointer: String,
    /// What the field must be.
    pub detail: Cow<'static, str>,
}

impl FieldError {
    /// An error in a field of the top-level object.
    pub fn new(field: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        // RFC 6901, section 3: `~` and `/` are escaped in a reference token.
        let token = field.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("/{token}"), detail: detail.into() }
    }
}

/// An invalid parameter of the query string or of a form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of error are distinguished by their members
pub struct ParameterError {
    /// The parameter's name.
    pub parameter: String,
    /// What the parameter must be.
    pub detail: Cow<'static, str>,
}

impl ParameterError {
    /// An error in a parameter.
    pub fn new(parameter: String, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter, detail: detail.into() }
    }
}

/// An error in a row of a body with many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)] // in the schema: the kinds of error are distinguished by their members
pub struct RowError {
    /// The line of the body on which the row begins, counted from 1.
    pub line: u64,
    /// The field; empty for the whole row.
    pub field: String,
    /// The location in a JSON array: a JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// What the field must be.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
}

/// All errors, in the order in which they were found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ProblemErrors)]
enum Faults {
    /// Fields of the body.
    Fields(Vec<FieldError>),
    /// Parameters of the query string or of a form.
    Parameters(Vec<ParameterError>),
    /// Rows of a body with many rows.
    Rows(Vec<RowError>),
}

/// A problem to be sent to the client.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Option<Faults>,
    headers: Vec<(HeaderName, Cow<'static, str>)>,
    checks: Option<Box<serde_json::Value>>,
}

/// An error (RFC 9457), with its members in the order of that specification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// The URL of a page that explains this kind of problem, relative to the host.
    #[schema(format = "uri-reference")]
    r#type: String,
    /// A short summary of the kind of problem.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The stable identifier of this kind of problem, for programs.
    code: &'a str,
    /// What to do about this occurrence, for people; may change.
    detail: &'a str,
    /// The id of the request, as in `X-Request-Id`, in the logs and in the history of the rows that it changed.
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: &'a Option<Faults>,
    /// The outcome of each readiness check, in responses about readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, nullable = false)]
    checks: &'a Option<Box<serde_json::Value>>,
}

impl Problem {
    /// A problem whose `detail` states what the client should do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: None, headers: Vec::new(), checks: None }
    }

    /// All invalid fields of a body.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is invalid; correct it and send the request again".to_owned(),
            n => format!("{n} fields are invalid; correct them and send the request again"),
        };
        Self { errors: Some(Faults::Fields(errors)), ..Self::new(Code::InvalidFields, detail) }
    }

    /// The first errors in rows, and the total numbers of errors and of invalid rows.
    pub fn rows(listed: Vec<RowError>, faults: u64, rows: u64) -> Self {
        let all = if faults > listed.len() as u64 {
            format!("; the first {} are listed", listed.len())
        } else {
            String::new()
        };
        let counted = |count: u64, thing: &str| format!("{count} {thing}{}", if count == 1 { "" } else { "s" });
        let (faults, rows) = (counted(faults, "error"), counted(rows, "row"));
        let detail = format!("{faults} in {rows}{all}; nothing was stored, correct them and send all rows again");
        Self { errors: Some(Faults::Rows(listed)), ..Self::new(Code::InvalidFields, detail) }
    }

    /// All invalid parameters, which the detail repeats for clients that show only the detail.
    pub fn parameters(errors: Vec<ParameterError>) -> Self {
        let named: Vec<String> = errors.iter().map(|error| format!("{} {}", error.parameter, error.detail)).collect();
        Self { errors: Some(Faults::Parameters(errors)), ..Self::new(Code::InvalidQuery, named.join("; ")) }
    }

    /// The path does not support the method; `allow` lists the methods that it does.
    pub fn method_not_allowed(allow: String) -> Self {
        Self::new(Code::MethodNotAllowed, format!("use one of: {allow}")).with_header(ALLOW, allow)
    }

    /// The resource has a different version than the preconditions require.
    pub fn stale() -> Self {
        Self::new(
            Code::PreconditionFailed,
            "the version of the resource does not satisfy If-Match and If-None-Match; read it again, and repeat the \
             change with its new ETag if it still applies",
        )
    }

    /// Returns true if the problem has this code.
    pub fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// Adds a header to the response.
    pub fn with_header(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The service is temporarily unavailable, and the client should retry.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// It is unknown whether a change was made. Without `Retry-After`, which HTTP clients take as permission to resend the
    /// request.
    fn outcome_unknown() -> Self {
        Self::new(
            Code::OutcomeUnknown,
            "the change was sent to the database, which did not confirm it; check with GET before you send it again. \
             A POST with an Idempotency-Key may be sent again without a check",
        )
    }

    /// Adjusts the problem for a request with an `Idempotency-Key`, which may be resent even if its outcome is unknown.
    pub fn with_key(self) -> Self {
        if !self.is(Code::OutcomeUnknown) {
            return self;
        }
        let detail = "the change was sent to the database, which did not confirm it; send the request again with the \
                      same Idempotency-Key, which is safe and returns the outcome, or check with GET";
        Self::new(Code::OutcomeUnknown, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// The client must send fewer or smaller requests at a time.
    pub fn too_many(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    /// Appends a hint about a possible cause to the detail.
    pub fn with_hint(self, hint: &str) -> Self {
        Self { detail: format!("{}; {hint}", self.detail).into(), ..self }
    }

    /// Adds the outcome of each readiness check, an extension member (RFC 9457, section 3.2).
    pub fn with_checks(self, checks: &impl Serialize) -> Self {
        Self { checks: serde_json::to_value(checks).ok().map(Box::new), ..self }
    }

    /// Serializes the document with this request id.
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

    /// The response without its document; [`write()`] adds that outside of all routes, where the request id is known.
    pub fn into_response(mut self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.code.parts().0;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // RFC 9110, section 15.1: caches may store 404, 405, 410, 414 and 501 responses unless told otherwise.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in std::mem::take(&mut self.headers) {
            let value = HeaderValue::try_from(&*value).expect("headers of problems are printable");
            headers.insert(name, value);
        }
        response.extensions_mut().insert(Unwritten(Arc::new(self)));
        response
    }
}

/// The problem of a response whose document is still to be written, stored in its extensions.
#[derive(Clone)]
struct Unwritten(Arc<Problem>);

/// Writes the document of a response that is a problem.
pub fn write<B: From<Vec<u8>>>(answer: &mut warp::http::Response<B>, request_id: &str) {
    if let Some(Unwritten(problem)) = answer.extensions_mut().remove() {
        *answer.body_mut() = problem.to_json(request_id).into();
    }
}

impl Problem {
    /// Converts a failed store operation. `missing` is the detail of a 404, and `constraint` finds the field of a violation.
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
                    "the database does not respond at the moment, and nothing was changed; send the request again",
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
            StoreError::Unreadable { .. } | StoreError::Enough | StoreError::Internal(_) => {}
        }
        tracing::error!(error = error as &dyn Error, "unexpected store error");
        Self::internal()
    }

    /// A bug of the server; the caller has logged the cause.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "the server failed to handle this request; report it with its X-Request-Id")
    }
}
