//! Authenticates requests: finds the principal of their credentials.

use std::sync::Arc;
use std::time::SystemTime;

use super::issuer::Issuer;
use super::issuer::rules::Refused;
use super::principal::Principal;
use super::scope::Scopes;
use super::tokens::{Tokens, Unusable};

/// Finds the principal of a token.
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
    /// An authenticator for these tokens and those of an identity provider; requests without credentials have the scopes
    /// `anonymous`.
    pub fn new(anonymous: Scopes, tokens: Tokens, issuer: Option<Issuer>) -> Self {
        Self { anonymous: Arc::new(Principal::anonymous(anonymous)), tokens, issuer }
    }

    /// The principal of requests without credentials.
    pub fn anonymous(&self) -> &Arc<Principal> {
        &self.anonymous
    }

    /// The principal of a token, if it is cached.
    pub fn known(&self, token: &str) -> Option<Result<Arc<Principal>, Refused>> {
        match self.issuer_of(token) {
            Some(issuer) => issuer.known(token, SystemTime::now()).map(Ok),
            None => Some(self.tokens.known(token)?.map_err(Refused::from)),
        }
    }

    /// The principal of a token, with a lookup if necessary.
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

    /// The identity provider, if this may be one of its tokens.
    fn issuer_of(&self, token: &str) -> Option<&Issuer> {
        self.issuer.as_ref().filter(|_| Issuer::may_have_issued(token))
    }

    /// Writes pending usage counts; called at the end, when no requests are left.
    pub async fn finish(&self) {
        self.tokens.write_uses().await;
    }
}
