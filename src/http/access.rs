//! How the refusal of a request without the right credentials reads (RFC 6750).

use warp::http::header::WWW_AUTHENTICATE;

use super::problem::{Code, Problem};
use crate::auth::scope::Access;

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
}

impl Denied {
    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCredentials => "missing",
            Self::Invalid(_) => "invalid",
            Self::Insufficient => "insufficient_scope",
            Self::Unavailable => "unavailable",
        }
    }

    /// As the client reads it. `metadata` is the URL of the document that names the identity provider (RFC 9728).
    pub fn problem(&self, access: Access, metadata: Option<&str>) -> Problem {
        let scope = access.to_string();
        let mut challenge = REALM.to_owned();
        let problem = match self {
            Self::NoCredentials => Problem::new(
                Code::Unauthenticated,
                format!("this needs a token with the scope {scope}; send it as Authorization: Bearer <token>"),
            ),
            Self::Invalid(why) => {
                challenge += &format!(", error=\"invalid_token\", error_description=\"{why}\"");
                Problem::new(Code::Unauthenticated, format!("{why}; this needs a token with the scope {scope}"))
            }
            Self::Insufficient => {
                challenge += ", error=\"insufficient_scope\"";
                Problem::new(
                    Code::InsufficientScope,
                    format!("the credentials of this request do not have the scope {scope}, which this needs"),
                )
            }
            Self::Unavailable => {
                return Problem::unavailable(
                    "the token cannot be checked now; nothing was done, send the request again",
                );
            }
        };
        challenge += &format!(", scope=\"{scope}\"");
        if let Some(metadata) = metadata {
            challenge += &format!(", resource_metadata=\"{metadata}\"");
        }
        problem.with_header(WWW_AUTHENTICATE, challenge)
    }
}
