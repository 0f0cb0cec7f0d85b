//! The compact serialization of a signed token (RFC 7515, 7.1): splits it into its three parts and validates the header.
//!
//! Of the header only the key id and the algorithm are used; a header with a key or the URL of one is refused, as is anything
//! that changes the meaning of the signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;
use super::rules::{Refused, TokenType};

/// Longer tokens are refused; access tokens with group claims have up to about 4 KiB.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Header members that are refused: each holds a key or its URL, or changes how the token is interpreted.
const REFUSED: [&str; 10] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "cty", "enc", "zip", "epk"];

/// A parsed token whose signature has not been verified.
pub struct Unverified<'a> {
    /// The signature algorithm.
    pub algorithm: Algorithm,
    /// The key id, if the header has one.
    pub kid: Option<String>,
    /// The signed bytes: the first two parts with the dot between them.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// The bytes of the claims.
    pub payload: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Parses a token and validates its header.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn parse(token: &'a str, accepted: TokenType) -> Result<Self, Refused> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(Refused::Invalid("it is longer than 8 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refused::Invalid("expected a signed token of three parts"));
        };
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Invalid("a part is not base64url"));
        let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
        let header = json::object(&decode(header)?)
            .ok_or(Refused::Invalid("its header is not a JSON object, or has a duplicate member"))?;
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return Err(Refused::Invalid("its header has an unsupported member: a key, the URL of a key, or crit"));
        }
        validate_type(&header, accepted)?;
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::of_name)
            .ok_or(Refused::Invalid("its algorithm is not RS256, PS256, ES256 or EdDSA"))?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refused::Invalid("its kid is not a string")),
        };
        Ok(Self { algorithm, kid, signed, signature: decode(signature)?, payload: decode(payload)? })
    }
}

/// RFC 9068, 2.1: `at+jwt` identifies access tokens, and no other kind of token must be accepted as one.
fn validate_type(header: &Map<String, Value>, accepted: TokenType) -> Result<(), Refused> {
    let typ = match header.get("typ") {
        None => None,
        Some(Value::String(typ)) => Some(typ.to_ascii_lowercase()),
        Some(_) => return Err(Refused::Invalid("its typ is not a string")),
    };
    match (typ.as_deref(), accepted) {
        (Some("at+jwt" | "application/at+jwt"), _) | (None | Some("jwt" | "application/jwt"), TokenType::Jwt) => Ok(()),
        (_, TokenType::AccessToken) => Err(Refused::Invalid("its typ is not at+jwt")),
        (_, TokenType::Jwt) => Err(Refused::Invalid("its typ is neither at+jwt nor JWT")),
    }
}
