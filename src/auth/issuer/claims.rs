//! The claims of an access token (RFC 9068, 2.2), validated with their types.
//!
//! A claim of the wrong type is refused, never treated as absent: other implementations have treated a string as `exp` as no
//! expiry. One leeway applies to all times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::json;
use super::rules::{Refused, Rules, TokenType};
use crate::auth::is_readable;

/// OpenID Connect Core, 2: a subject has at most 255 characters.
const SUBJECT_MAX_BYTES: usize = 255;
/// The end of the year 9999. A later time is a mistake, such as a value in milliseconds.
const TIME_MAX: f64 = 253_402_300_800.0;

/// Claims of other kinds of tokens, which providers that type every token as `JWT` sign with the same keys.
const MARKS_OF_OTHERS: [&str; 5] = ["nonce", "at_hash", "c_hash", "s_hash", "events"];

/// The claims of a token that this service uses.
#[derive(Debug)]
pub struct Claims {
    /// The `sub` claim.
    pub subject: String,
    /// The time from which it is refused: its `exp` plus the leeway.
    pub expires: SystemTime,
    /// All claims, for the scopes.
    pub members: Map<String, Value>,
}

impl Claims {
    /// Parses and validates the claims at a time.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn validate(payload: &[u8], rules: &Rules, now: SystemTime) -> Result<Self, Refused> {
        let members = json::object(payload)
            .ok_or(Refused::Invalid("its claims are not a JSON object, or have a duplicate member"))?;
        if members.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
            return Err(Refused::Invalid("its iss is not the trusted issuer"));
        }
        if !is_for(members.get("aud"), &rules.audience) {
            return Err(Refused::Invalid("its aud does not contain this service"));
        }
        let expires = validate_times(&members, rules.leeway, now)?;
        let subject = match members.get("sub") {
            Some(Value::String(subject)) if is_subject(subject) => subject.clone(),
            _ => {
                return Err(Refused::Invalid(
                    "its sub is not a string of 1 to 255 bytes without control and direction characters",
                ));
            }
        };
        if members.contains_key("cnf") {
            return Err(Refused::Invalid("it is bound to a key of the client (cnf), which this service cannot check"));
        }
        if rules.token_type == TokenType::Jwt && is_of_another_kind(&members) {
            return Err(Refused::Invalid("it is not an access token"));
        }
        Ok(Self { subject, expires, members })
    }
}

fn is_for(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one == audience)
        }
        _ => false,
    }
}

/// Validates `exp`, `nbf` and `iat`; returns the time from which the token is refused.
fn validate_times(members: &Map<String, Value>, leeway: Duration, now: SystemTime) -> Result<SystemTime, Refused> {
    let time = |name: &str, refusal| match members.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            // A time before 1970 is valid: the token has expired, or has been valid for long.
            Some(seconds) if seconds < TIME_MAX => Ok(Some(Duration::from_secs_f64(seconds.max(0.0)))),
            _ => Err(Refused::Invalid(refusal)),
        },
    };
    let expires =
        time("exp", "its exp is not a number of seconds since 1970")?.ok_or(Refused::Invalid("it has no exp"))?;
    let not_before = time("nbf", "its nbf is not a number of seconds since 1970")?;
    let issued_at = time("iat", "its iat is not a number of seconds since 1970")?;
    // A clock before 1970 is unusable; every token then counts as issued in the future.
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = expires + leeway;
    if now >= expires {
        return Err(Refused::Invalid("the token has expired"));
    }
    if not_before.is_some_and(|time| time > now + leeway) {
        return Err(Refused::Invalid("it is not valid yet (nbf); are the clocks right?"));
    }
    if issued_at.is_some_and(|time| time > now + leeway) {
        return Err(Refused::Invalid("it was issued in the future (iat); are the clocks right?"));
    }
    Ok(UNIX_EPOCH + expires)
}

fn is_subject(text: &str) -> bool {
    (1..=SUBJECT_MAX_BYTES).contains(&text.len()) && is_readable(text)
}

/// Returns true if the claims are those of an ID, refresh or logout token, according to the claims that OpenID Connect defines
/// for these, and to `typ` (Keycloak) and `token_use` (Cognito).
fn is_of_another_kind(members: &Map<String, Value>) -> bool {
    let differs = |name: &str, expected: &str| {
        members.get(name).is_some_and(|value| !value.as_str().is_some_and(|value| value.eq_ignore_ascii_case(expected)))
    };
    MARKS_OF_OTHERS.iter().any(|name| members.contains_key(*name))
        || differs("typ", "Bearer")
        || differs("token_use", "access")
}
