//! Whom a request's credentials prove.

use std::sync::Arc;
use std::time::SystemTime;

use super::issuer::Issuer;
use super::issuer::rules::Refused;
use super::principal::Principal;
use super::scope::Scopes;
use super::tokens::{Tokens, Unusable};

/// Finds out who asks.
pub struct Authenticator {
    anonymous: Arc<Principal>,
    tokens: Tokens,
    /// The identity provider, if there is one.
    issuer: Option<Issuer>,
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        Self::Invalid(unusable.reason())
    }
}

impl Authenticator {
    /// With these tokens, and those of an identity provider; without any credentials somebody may do what these scopes say.
    pub fn new(anonymous: Scopes, tokens: Tokens, issuer: Option<Issuer>) -> Self {
        Self { anonymous: Arc::new(Principal::anonymous(anonymous)), tokens, issuer }
    }

    /// Whoever comes without credentials.
    pub fn anonymous(&self) -> &Arc<Principal> {
        &self.anonymous
    }

    /// Whom a token proves, if that is known without asking anybody.
    pub fn known(&self, token: &str) -> Option<Result<Arc<Principal>, Refused>> {
        match self.issuer_of(token) {
            Some(issuer) => issuer.known(token, SystemTime::now()).map(Ok),
            None => Some(self.tokens.known(token)?.map_err(Refused::from)),
        }
    }

    /// The same, asking whoever must be asked.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refused> {
        if let Some(issuer) = self.issuer_of(token) {
            return issuer.principal(token, SystemTime::now()).await;
        }
        match self.tokens.find(token).await {
            Ok(found) => found.map_err(Refused::from),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot look for a token");
                Err(Refused::Unavailable)
            }
        }
    }

    /// The identity provider, when this may be one of its tokens.
    fn issuer_of(&self, token: &str) -> Option<&Issuer> {
        self.issuer.as_ref().filter(|_| Issuer::is_meant(token))
    }

    /// Keeps what was counted; at the end, when nobody asks any more.
    pub async fn finish(&self) {
        self.tokens.write_uses().await;
    }
}
