//! How the refusal of a request without the right credentials reads (RFC 6750).

use warp::http::HeaderMap;
use warp::http::header::{HOST, RETRY_AFTER, WWW_AUTHENTICATE};

use super::browser::FORWARDED_PROTO;
use super::problem::{Code, Problem};
use super::route::Share;
use crate::auth::scope::Access;

/// Where the document is that names the identity provider (RFC 9728, section 3).
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

/// The protection space (RFC 9110, section 11.5).
const REALM: &str = "Bearer realm=\"pycrudapi\"";

/// Why nobody was let through.
#[derive(Debug)]
pub enum Denied {
    /// There are no credentials, and without them not enough is allowed.
    NoCredentials,
    /// They prove nothing; why.
    Invalid(&'static str),
    /// They prove somebody who may not do this.
    Insufficient,
    /// They cannot be looked at now.
    Unavailable,
    /// They prove somebody who has no request left, and has another one after so many seconds.
    TooMany(Share, u64),
    /// Too many tokens that nobody knows come from their address, which may send another after so many seconds.
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

    /// As a client reads it that has sent these headers, where there is an identity provider or is none.
    pub fn problem(&self, access: Access, headers: &HeaderMap, has_issuer: bool) -> Problem {
        let scope = access.to_string();
        let mut challenge = REALM.to_owned();
        let problem = match self {
            Self::NoCredentials => Problem::new(
                Code::Unauthenticated,
                format!("this needs a token with the scope {scope}; send it as Authorization: Bearer <token>"),
            ),
            Self::Invalid(why) => {
                challenge += &format!(", error=\"invalid_token\", error_description=\"{why}\"");
                let remedy = if scope.is_empty() {
                    "send another one, or none".to_owned()
                } else {
                    format!("this needs a token with the scope {scope}")
                };
                Problem::new(Code::Unauthenticated, format!("{why}; {remedy}"))
            }
            Self::Insufficient => {
                challenge += ", error=\"insufficient_scope\"";
                Problem::new(
                    Code::InsufficientScope,
                    format!("the credentials of this request do not have the scope {scope}, which this needs"),
                )
            }
            Self::TooMany(share, seconds) => return share.problem(*seconds),
            Self::TooManyTokens(seconds) => {
                let detail = "too many tokens that are not known come from this address; nothing was done, send the request \
                              again after Retry-After";
                return Problem::new(Code::TooManyRequests, detail).with_header(RETRY_AFTER, seconds.to_string());
            }
            Self::Unavailable => {
                return Problem::unavailable(
                    "the token cannot be checked now; nothing was done, send the request again",
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

/// The origin under which a client asks; nginx says by which scheme, and the host was found to be ours.
pub fn origin(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text(FORWARDED_PROTO).filter(|scheme| *scheme == "https").unwrap_or("http");
    format!("{scheme}://{}", text(HOST).filter(|host| is_host(host)).unwrap_or("localhost"))
}

/// Whether a text can stand in a URL and in a quoted string.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}
