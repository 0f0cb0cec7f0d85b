//! Which scopes a token's claims give: out of `scope` or `scp`, or out of a claim that is named, with a mapping or as they are.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::rules::Refused;
use crate::auth::scope::{ScopeError, Scopes};

const WRONG_TYPE: Refused = Refused::Invalid("its scopes are neither a text nor a list of texts");

/// Where the scopes are.
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
    /// A claim of this name, such as `https://example.com/roles`, or else the one at this path, such as `realm_access.roles`.
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        if let Some(value) = claims.get(&self.0) {
            return Some(value);
        }
        let (first, rest) = self.0.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
    }
}

/// What the words of the claim mean here, such as `reader=*:read,clerk=passengers:* steps:read`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeMap {
    /// As it was given.
    text: String,
    words: HashMap<String, Scopes>,
}

impl ScopeMap {
    /// What each of its words means.
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
                return Err(format!("{word:?} is mapped twice; write its scopes with a blank between them"));
            }
        }
        Ok(Self { text: text.to_owned(), words })
    }
}

/// How scopes are read out of claims.
#[derive(Debug, Clone, Default)]
pub struct ScopeRules {
    /// The claim they are in; `scope` or `scp` unless it is given.
    pub claim: Option<ScopeClaim>,
    /// What its words mean. With a mapping a word that it does not have means nothing: a provider's role that happens to be called
    /// `admin` makes nobody an administrator here.
    pub map: Option<ScopeMap>,
}

impl ScopeRules {
    /// The scopes that these claims give; none where the claim is absent.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when the claim has another type than a text or a list of texts.
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
