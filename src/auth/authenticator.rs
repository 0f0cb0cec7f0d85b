//! Whom a request's credentials prove.

use std::sync::Arc;

use super::principal::Principal;
use super::scope::Scopes;
use super::tokens::{Tokens, Unusable};

/// Finds out who asks.
pub struct Authenticator {
    anonymous: Arc<Principal>,
    tokens: Tokens,
}

/// Why a token proves nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not good; why.
    Invalid(&'static str),
    /// What it would be checked with cannot be asked.
    Unavailable,
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        Self::Invalid(unusable.reason())
    }
}

impl Authenticator {
    /// With these tokens; without any credentials somebody may do what these scopes say.
    pub fn new(anonymous: Scopes, tokens: Tokens) -> Self {
        Self { anonymous: Arc::new(Principal::anonymous(anonymous)), tokens }
    }

    /// Whoever comes without credentials.
    pub fn anonymous(&self) -> &Arc<Principal> {
        &self.anonymous
    }

    /// Whom a token proves, if that is known without asking anybody.
    pub fn known(&self, token: &str) -> Option<Result<Arc<Principal>, Refused>> {
        Some(self.tokens.known(token)?.map_err(Refused::from))
    }

    /// The same, asking whoever must be asked.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refused> {
        match self.tokens.find(token).await {
            Ok(found) => found.map_err(Refused::from),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot look for a token");
                Err(Refused::Unavailable)
            }
        }
    }

    /// Keeps what was counted; at the end, when nobody asks any more.
    pub async fn finish(&self) {
        self.tokens.write_uses().await;
    }
}
