//! Maps a token's claims to scopes: from `scope` or `scp`, or from a configured claim, with or without a mapping.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::rules::Refused;
use crate::auth::scope::{ScopeError, Scopes};

const WRONG_TYPE: Refused = Refused::Invalid("its scopes are neither a string nor a list of strings");

/// The claim that holds the scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeClaim(String);

impl FromStr for ScopeClaim {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ScopeClaim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl ScopeClaim {
    /// Finds a claim with this name, such as `https://example.com/roles`, or the one at this path, such as
    /// `realm_access.roles`.
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(value) = claims.get(&self.0) {
            return Some(value);
        }
        let (first, rest) = self.0.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
    }
}

/// Maps the claim's words to scopes, for example `reader=*:read,clerk=passengers:* steps:read`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeMap {
    /// The original text.
    text: String,
    words: HashMap<String, Scopes>,
}

impl ScopeMap {
    /// The scopes of each word.
    pub fn scopes(&self) -> impl Iterator<Item = &Scopes> {
        self.words.values()
    }
}

impl fmt::Display for ScopeMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for ScopeMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = HashMap::new();
        for entry in text.split(',').map(str::trim) {
            let (word, scopes) = entry
                .rsplit_once('=')
                .filter(|(word, scopes)| !word.is_empty() && !scopes.trim().is_empty())
                .ok_or_else(|| format!("expected word=scope, found {entry:?}"))?;
            let scopes = scopes.parse().map_err(|error: ScopeError| error.to_string())?;
            if words.insert(word.to_owned(), scopes).is_some() {
                return Err(format!("{word:?} is mapped twice; separate its scopes by spaces"));
            }
        }
        Ok(Self { text: text.to_owned(), words })
    }
}

/// How scopes are derived from claims.
#[derive(Debug, Clone, Default)]
pub struct ScopeRules {
    /// The claim with the scopes; `scope` or `scp` by default.
    pub claim: Option<ScopeClaim>,
    /// The mapping of its words. With a mapping, unmapped words are ignored, so that a provider's role that happens to be
    /// called `admin` does not make its users administrators here.
    pub map: Option<ScopeMap>,
}

impl ScopeRules {
    /// The scopes of these claims; empty if the claim is absent.
    ///
    /// # Errors
    /// [`Refused::Invalid`] if the claim is neither a string nor a list of strings.
    pub fn of(&self, claims: &Map<String, Value>) -> Result<Scopes, Refused> {
        let value = match &self.claim {
            Some(claim) => claim.find(claims),
            None => claims.get("scope").or_else(|| claims.get("scp")),
        };
        let words: Vec<&str> = match value {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(WRONG_TYPE)?,
            Some(_) => return Err(WRONG_TYPE),
        };
        Ok(match &self.map {
            None => Scopes::of_claim(words),
            Some(map) => {
                let mut scopes = Scopes::default();
                for mapped in words.into_iter().filter_map(|word| map.words.get(word)) {
                    scopes.extend(mapped);
                }
                scopes
            }
        })
    }
}
