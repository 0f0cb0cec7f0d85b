//! What a token must be, and what is said of one that is not.

use std::str::FromStr;
use std::time::Duration;

/// Which tokens pass for access tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenType {
    /// Those with the type `at+jwt` (RFC 9068).
    #[default]
    AccessToken,
    /// Those with the type `JWT`, or none, too, unless their claims are those of another kind of token.
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

/// What every token must be.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its `iss`.
    pub issuer: String,
    /// One of its `aud`.
    pub audience: String,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Its `typ`.
    pub token_type: TokenType,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not a token of this issuer for this service; the reason may be shown to whoever sent it.
    Invalid(&'static str),
    /// Nobody can say: the issuer's keys are not known, or the token's key is not and the issuer cannot be asked.
    Unavailable,
}
