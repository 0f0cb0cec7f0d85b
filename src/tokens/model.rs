//! Tokens as JSON: input and output.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::scope::Scopes;
use crate::auth::tokens::store::Listed;
use crate::auth::tokens::{self, LIFETIME_DEFAULT, NAME_MAX_CHARS, TokenSpec, lifetime};
use crate::duration::span;
use crate::http::json::{self, Members};
use crate::http::problem::{FieldError, Problem};

/// The members of a token to be created.
const FIELDS: &str = "name, scopes, expires";
/// The maximum time for which a rotated token stays valid, in hours.
const OVERLAP_MAX_HOURS: u64 = 720;

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Token)]
pub struct Shown {
    /// The id used in commands, logs and history.
    id: Uuid,
    /// The name for people.
    name: String,
    /// The permitted scopes.
    scopes: Vec<String>,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    /// The principal that created it; null if it was created with direct access to the database.
    created_by: Option<String>,
    /// Null if it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    revoked_by: Option<String>,
    /// Written every ten seconds.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// The number of requests made with it; written every ten seconds.
    uses: i64,
}

/// A newly created token with its secret, which is shown only once.
#[derive(Serialize, ToSchema)]
#[schema(as = NewToken)]
pub struct Made {
    /// The token.
    token: String,
    #[serde(flatten)]
    shown: Shown,
}

impl Shown {
    /// The output for a token.
    pub fn of(token: Listed) -> Self {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        Self {
            state: token.state().name(),
            id: token.id,
            name: token.name,
            scopes: token.scopes.split(' ').map(str::to_owned).collect(),
            created_at: token.created_at.to_string(),
            created_by: token.created_by,
            expires_at: time(token.expires_at),
            revoked_at: time(token.revoked_at),
            revoked_by: token.revoked_by,
            last_used_at: time(token.last_used_at),
            uses: token.uses,
        }
    }
}

impl Made {
    /// The output for a newly created token.
    pub fn of(token: &str, listed: Listed) -> Self {
        Self { token: token.to_owned(), shown: Shown::of(listed) }
    }
}

/// Reads a token to be created; scopes may name these resources.
///
/// # Errors
/// 400 if the body is not JSON, 422 with every invalid field.
pub fn read(body: &[u8], resources: &[&str]) -> Result<TokenSpec, Problem> {
    let mut fields = Fields::of(body, FIELDS)?;
    let name = fields.required(
        "name",
        &format!("must be a string of 1 to {NAME_MAX_CHARS} characters, without control and direction characters"),
        |raw| json::text(raw).map(Cow::into_owned).filter(|text| tokens::is_name(text)),
    );
    let rule = format!(
        "must be an array of scopes such as passengers:read, steps:*, *:read or admin; resources are {}",
        resources.join(", ")
    );
    let scopes = fields.required("scopes", &rule, |raw| {
        let words: Vec<String> = serde_json::from_str(raw).ok()?;
        let scopes: Scopes =
            words.iter().all(|word| !word.contains([' ', ','])).then(|| words.join(" "))?.parse().ok()?;
        (!scopes.is_empty() && scopes.resources().all(|name| resources.contains(&name))).then_some(scopes)
    });
    let lifetime =
        fields.optional("expires", "must be a duration such as 12h or 90d, at most ten years, or never", |raw| {
            lifetime(&json::text(raw)?).ok()
        });
    fields.finish()?;
    let lifetime = match lifetime {
        Some(lifetime) => lifetime,
        None => tokens::lifetime(LIFETIME_DEFAULT).expect("the default is valid"),
    };
    Ok(TokenSpec { name: name.expect("no fault was found"), scopes: scopes.expect("no fault was found"), lifetime })
}

/// Reads how long a rotated token stays valid; an empty body means not at all.
///
/// # Errors
/// As [`read`].
pub fn read_overlap(body: &[u8]) -> Result<Duration, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Duration::ZERO);
    }
    let mut fields = Fields::of(body, "overlap")?;
    let rule = format!("must be a duration between 1s and {OVERLAP_MAX_HOURS}h, such as 15m or 1h");
    let overlap = fields.optional("overlap", &rule, |raw| span::<OVERLAP_MAX_HOURS>(&json::text(raw)?).ok());
    fields.finish()?;
    Ok(overlap.unwrap_or_default())
}

/// The members of a body, and their errors.
struct Fields<'a> {
    members: Members<'a>,
    known: Vec<&'static str>,
    names: &'static str,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    fn of(body: &'a [u8], names: &'static str) -> Result<Self, Problem> {
        let members = json::members(body, || names.to_owned())?;
        Ok(Self { members, known: Vec::new(), names, errors: Vec::new() })
    }

    fn required<T>(&mut self, name: &'static str, rule: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        if self.raw(name).is_none() {
            self.known.push(name);
            self.fault(name, format!("is missing; it {rule}"));
            return None;
        }
        self.optional(name, rule, read)
    }

    fn optional<T>(&mut self, name: &'static str, rule: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.known.push(name);
        let raw = self.raw(name)?;
        let value = read(raw.get());
        if value.is_none() {
            self.fault(name, rule.to_owned());
        }
        value
    }

    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.values.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw)
    }

    fn fault(&mut self, name: &str, detail: String) {
        self.errors.push(FieldError::new(name, detail));
    }

    fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self
            .members
            .values
            .iter()
            .map(|(key, _)| key.to_string())
            .filter(|key| !self.known.contains(&key.as_str()))
            .collect();
        for key in unknown {
            self.fault(&key, format!("is an unknown field; the fields are {}", self.names));
        }
        let repeated: Vec<String> = self.members.repeated.iter().map(ToString::to_string).collect();
        for key in repeated {
            self.fault(&key, "is a duplicate field; keep one".to_owned());
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }
}
