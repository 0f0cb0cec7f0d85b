//! The requirements for a token, and the reasons for refusing one.

use std::str::FromStr;
use std::time::Duration;

/// Which tokens are accepted as access tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenType {
    /// Tokens of type `at+jwt` (RFC 9068).
    #[default]
    AccessToken,
    /// Also tokens of type `JWT` or without a type, unless their claims are those of another kind of token.
    Jwt,
}

impl FromStr for TokenType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "at+jwt" => Ok(Self::AccessToken),
            "jwt" => Ok(Self::Jwt),
            _ => Err("expected at+jwt or jwt"),
        }
    }
}

/// The requirements for every token.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The expected `iss`.
    pub issuer: String,
    /// The expected element of `aud`.
    pub audience: String,
    /// The tolerated clock difference.
    pub leeway: Duration,
    /// The accepted `typ`.
    pub token_type: TokenType,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not a valid token of this issuer for this service; the reason may be returned to the client.
    Invalid(&'static str),
    /// It cannot be checked: the issuer's keys or the token's key are unknown, and the issuer cannot be reached.
    Unavailable,
}
