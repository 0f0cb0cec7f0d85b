//! Scopes: what a principal may do with which resource, and what a route requires.

use std::fmt;
use std::str::FromStr;

use strum::{EnumIter, IntoEnumIterator};
use thiserror::Error;

/// Every resource before the colon, every action after it.
const ALL: &str = "*";
/// The scope that permits everything, including managing tokens.
const ADMIN: &str = "admin";

/// An action on rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter)]
pub enum Action {
    /// Read one row, many rows, statistics or history.
    Read,
    /// Create one or many.
    Create,
    /// Replace, patch or restore one; the response includes the resulting row.
    Update,
    /// Delete one.
    Delete,
}

impl Action {
    /// The name in a scope.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Every action.
const EVERY_ACTION: u8 = 0b1111;

/// The access that a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None: documentation, probes and pages.
    Public,
    /// None, but credentials that are sent must be valid.
    Anybody,
    /// A scope.
    Scope(&'static str, Action),
    /// The scope `admin`.
    Admin,
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public | Self::Anybody => Ok(()),
            Self::Scope(resource, action) => write!(formatter, "{resource}:{}", action.name()),
            Self::Admin => formatter.write_str(ADMIN),
        }
    }
}

/// The scopes of a principal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    admin: bool,
    /// Actions on every resource, as bits.
    every: u8,
    /// Actions on single resources, as bits.
    of: Vec<(String, u8)>,
}

/// A text that is not a scope.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a scope; a scope is <resource>:<action> with the action read, create, update, delete or *, or \
         admin"
)]
pub struct ScopeError(String);

impl Scopes {
    /// Returns true if the scopes permit this access.
    pub fn permit(&self, access: Access) -> bool {
        match access {
            Access::Public | Access::Anybody => true,
            Access::Scope(resource, action) => self.permits(resource, action),
            Access::Admin => self.admin,
        }
    }

    /// Returns true if the scopes permit this action on a resource.
    pub fn permits(&self, resource: &str, action: Action) -> bool {
        let of = || self.of.iter().find(|(name, _)| name == resource).map_or(0, |(_, actions)| *actions);
        self.admin || (self.every | of()) & action.bit() != 0
    }

    /// The scopes of all requests while credentials are not checked.
    pub fn everything() -> Self {
        Self { every: EVERY_ACTION, ..Self::default() }
    }

    /// Returns true if nothing is permitted.
    pub fn is_empty(&self) -> bool {
        !self.admin && self.every == 0 && self.of.is_empty()
    }

    /// The names of the resources in the scopes.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.of.iter().map(|(name, _)| name.as_str())
    }

    /// The scopes among the words of an identity provider's claim; other words are ignored.
    pub fn of_claim<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scopes = Self::default();
        for word in words {
            // Other words add nothing.
            let _ = scopes.add(word);
        }
        scopes
    }

    /// Adds other scopes.
    pub fn extend(&mut self, other: &Self) {
        self.admin |= other.admin;
        self.every |= other.every;
        for (name, actions) in &other.of {
            self.allow(name, *actions);
        }
    }

    fn add(&mut self, word: &str) -> Result<(), ScopeError> {
        let wrong = || ScopeError(word.to_owned());
        if word == ADMIN {
            self.admin = true;
            return Ok(());
        }
        let (resource, action) = word.split_once(':').ok_or_else(wrong)?;
        let actions = if action == ALL {
            EVERY_ACTION
        } else {
            Action::iter().find(|known| known.name() == action).ok_or_else(wrong)?.bit()
        };
        let is_name = |name: &str| {
            name != ADMIN
                && name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match resource {
            ALL => self.every |= actions,
            name if is_name(name) => self.allow(name, actions),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn allow(&mut self, name: &str, actions: u8) {
        match self.of.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known |= actions,
            None => self.of.push((name.to_owned(), actions)),
        }
    }
}

/// Scopes separated by spaces or commas.
impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let mut scopes = Self::default();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            scopes.add(word)?;
        }
        Ok(scopes)
    }
}

/// Scopes separated by spaces, as in RFC 6749, each in its shortest form.
impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.admin {
            words.push(ADMIN.to_owned());
        }
        let every = (self.every != 0).then_some((ALL, self.every));
        for (name, actions) in every.into_iter().chain(self.of.iter().map(|(name, actions)| (name.as_str(), *actions)))
        {
            if actions == EVERY_ACTION {
                words.push(format!("{name}:{ALL}"));
            } else {
                let named = Action::iter().filter(|action| actions & action.bit() != 0);
                words.extend(named.map(|action| format!("{name}:{}", action.name())));
            }
        }
        formatter.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(text: &str) -> Scopes {
        text.parse().expect("scopes")
    }

    #[test]
    fn a_scope_permits_exactly_its_resource_and_action() {
        let both = [("passengers", Action::Read), ("passengers", Action::Delete), ("steps", Action::Read)];
        let permitted = |text| both.map(|(resource, action)| scopes(text).permits(resource, action));
        assert_eq!(permitted(""), [false, false, false]);
        assert_eq!(permitted("passengers:read"), [true, false, false]);
        assert_eq!(permitted("passengers:*"), [true, true, false]);
        assert_eq!(permitted("*:read"), [true, false, true]);
        assert_eq!(permitted("*:read, passengers:delete"), [true, true, true]);
        assert_eq!(permitted("passenger:*"), [false, false, false]);
        assert_eq!(permitted("admin"), [true, true, true]);
        assert!(!scopes("*:*").permit(Access::Admin));
        assert!(scopes("admin").permit(Access::Admin));
        assert!(scopes("").permit(Access::Public));
    }

    #[test]
    fn an_invalid_scope_is_refused_by_name() {
        for wrong in
            ["passengers", "passengers:", ":read", "passengers:write", "Passengers:read", "admin:*", "a:b:read"]
        {
            assert_eq!(wrong.parse::<Scopes>(), Err(ScopeError(wrong.to_owned())));
        }
        assert_eq!(Scopes::of_claim(["openid", "passengers:read", "email"]), scopes("passengers:read"));
    }

    proptest! {
        #[test]
        fn scopes_are_written_as_they_are_read(
            words in prop::collection::vec("(admin|(\\*|a|b-c|d2):(\\*|read|create|update|delete))", 0..8),
        ) {
            let scopes = scopes(&words.join(" "));
            prop_assert_eq!(scopes.to_string().parse::<Scopes>().expect("scopes"), scopes);
        }
    }
}
