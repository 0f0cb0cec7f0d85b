//! Problems for requests whose credentials are missing, invalid or insufficient (RFC 6750).

use warp::http::HeaderMap;
use warp::http::header::{HOST, RETRY_AFTER, WWW_AUTHENTICATE};

use super::browser::FORWARDED_PROTO;
use super::problem::{Code, Problem};
use super::route::RateLimit;
use crate::auth::scope::Access;

/// Path of the document that names the identity provider (RFC 9728, section 3).
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

/// The protection space (RFC 9110, section 11.5).
const REALM: &str = "Bearer realm=\"pycrudapi\"";

/// Why a request was denied.
#[derive(Debug)]
pub enum Denied {
    /// The request has no credentials, and anonymous access is not sufficient.
    NoCredentials,
    /// The credentials are invalid, with the reason.
    Invalid(&'static str),
    /// The credentials are valid but lack the required scope.
    Insufficient,
    /// The credentials cannot be checked at the moment.
    Unavailable,
    /// The principal has exhausted its request quota; the number is the seconds until the next request is allowed.
    TooMany(RateLimit, u64),
    /// Too many unknown tokens came from the client's address; the number is the seconds until the next one is allowed.
    TooManyTokens(u64),
}

impl Denied {
    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCredentials => "missing",
            Self::Invalid(_) => "invalid",
            Self::Insufficient => "insufficient_scope",
            Self::Unavailable => "unavailable",
            Self::TooMany(..) | Self::TooManyTokens(_) => "too_many",
        }
    }

    /// The problem for a client that sent these headers; `has_issuer` is true if an identity provider is configured.
    pub fn problem(&self, access: Access, headers: &HeaderMap, has_issuer: bool) -> Problem {
        let scope = access.to_string();
        let mut challenge = REALM.to_owned();
        let problem = match self {
            Self::NoCredentials => Problem::new(
                Code::Unauthenticated,
                format!("this requires a token with the scope {scope}; send it as Authorization: Bearer <token>"),
            ),
            Self::Invalid(why) => {
                challenge += &format!(", error=\"invalid_token\", error_description=\"{why}\"");
                let remedy = if scope.is_empty() {
                    "send another token, or none".to_owned()
                } else {
                    format!("this requires a token with the scope {scope}")
                };
                Problem::new(Code::Unauthenticated, format!("{why}; {remedy}"))
            }
            Self::Insufficient => {
                challenge += ", error=\"insufficient_scope\"";
                Problem::new(
                    Code::InsufficientScope,
                    format!("the credentials of this request lack the required scope {scope}"),
                )
            }
            Self::TooMany(limit, seconds) => return limit.problem(*seconds),
            Self::TooManyTokens(seconds) => {
                let detail = "this address has sent too many unknown tokens; nothing was done, send the request again \
                              after Retry-After";
                return Problem::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, seconds.to_string());
            }
            Self::Unavailable => {
                return Problem::unavailable(
                    "the token cannot be checked at the moment; nothing was done, send the request again",
                );
            }
        };
        if !scope.is_empty() {
            challenge += &format!(", scope=\"{scope}\"");
        }
        if has_issuer {
            challenge += &format!(", resource_metadata=\"{}{METADATA}\"", origin(headers));
        }
        problem.with_header(WWW_AUTHENTICATE, challenge)
    }
}

/// The origin in the client's URL. nginx reports the scheme, and the guard has checked the host.
pub fn origin(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text(FORWARDED_PROTO).filter(|scheme| *scheme == "https").unwrap_or("http");
    format!("{scheme}://{}", text(HOST).filter(|host| is_host(host)).unwrap_or("localhost"))
}

/// Returns true if a text is valid both in a URL and in a quoted string.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}
