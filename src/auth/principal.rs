//! Whoever a request is made by.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::scope::Scopes;

/// How a principal was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not at all.
    Anonymous,
    /// By a token of this service.
    Token,
    /// By an access token of the identity provider.
    Issuer,
}

impl Kind {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token => "token",
            Self::Issuer => "issuer",
        }
    }
}

/// Whoever a request is made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// How that is known.
    pub kind: Kind,
    /// `token:<id>`, or issuer and subject with a blank between them; what history and logs keep, never a secret. Nobody's
    /// for the anonymous one.
    pub name: Option<Arc<str>>,
    /// What may be done.
    pub scopes: Scopes,
    /// When the credential ends.
    pub expires: Option<SystemTime>,
}

impl Principal {
    /// Somebody without credentials, who may do this much.
    pub fn anonymous(scopes: Scopes) -> Self {
        Self { kind: Kind::Anonymous, name: None, scopes, expires: None }
    }

    /// Everybody while credentials are not looked at.
    pub fn anybody() -> &'static Arc<Self> {
        static ANYBODY: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::anonymous(Scopes::default())));
        &ANYBODY
    }

    /// Whether the credential holds at this time.
    pub fn is_current(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}
