//! The principal of a request.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::scope::Scopes;

/// How a principal was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Without credentials.
    Anonymous,
    /// By a token of this service.
    Token,
    /// By an access token of the identity provider.
    Issuer,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Anonymous, Self::Token, Self::Issuer];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token => "token",
            Self::Issuer => "issuer",
        }
    }
}

/// The principal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// How it was authenticated.
    pub kind: Kind,
    /// `token:<id>`, or issuer and subject separated by a space; stored in history and logs, never a secret. `None` for an
    /// anonymous principal.
    pub name: Option<Arc<str>>,
    /// The permitted scopes.
    pub scopes: Scopes,
    /// When the credential expires.
    pub expires: Option<SystemTime>,
}

impl Principal {
    /// An anonymous principal with these scopes.
    pub fn anonymous(scopes: Scopes) -> Self {
        Self { kind: Kind::Anonymous, name: None, scopes, expires: None }
    }

    /// The principal of all requests while credentials are not checked.
    pub fn anybody() -> &'static Arc<Self> {
        static ANYBODY: LazyLock<Arc<Principal>> = LazyLock::new(|| Arc::new(Principal::anonymous(Scopes::default())));
        &ANYBODY
    }

    /// Returns true if the credential has not expired at this time.
    pub fn is_current(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}
