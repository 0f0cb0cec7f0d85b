//! Access tokens of an identity provider (RFC 9068), validated according to RFC 8725.
//!
//! A token is parsed (`jws`) and its claims are validated (`claims`) before a key is looked up (`keys`) and the signature
//! verified, so that no keys are fetched for a token that is invalid anyway. The reasons for refusals are constant texts, so
//! that no part of a token reaches a response or a log.

pub mod algorithm;
mod claims;
pub mod fetch;
mod json;
mod jws;
pub mod key_set;
pub mod keys;
pub mod rules;
pub mod scope_claim;
pub mod source;
mod verified_cache;

use std::sync::Arc;
use std::time::SystemTime;

use self::claims::Claims;
use self::jws::Unverified;
use self::keys::{Keys, Known, Pace};
use self::rules::{Refused, Rules};
use self::scope_claim::ScopeRules;
use self::source::Source;
use self::verified_cache::VerifiedCache;
use crate::auth::principal::{Kind, Principal};
use crate::auth::scope::Scopes;
use crate::shutdown::Shutdown;

/// The configuration of the identity provider.
#[derive(Clone)]
pub struct Options {
    /// Requirements for every token.
    pub rules: Rules,
    /// How claims are mapped to scopes.
    pub scopes: ScopeRules,
    /// The source of the keys.
    pub source: Source,
    /// How often the keys are read.
    pub pace: Pace,
}

/// A valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its `sub`.
    pub subject: String,
    /// The permitted scopes.
    pub scopes: Scopes,
    /// The time from which it is refused: its `exp` plus the leeway.
    pub expires: SystemTime,
    /// The generation of the keys that it was verified with; a later one may lack its key.
    pub generation: u64,
}

/// The trusted identity provider. Cheap to clone; clones share its keys.
#[derive(Clone)]
pub struct Issuer {
    rules: Arc<Rules>,
    scopes: Arc<ScopeRules>,
    keys: Keys,
    cache: VerifiedCache,
}

impl Issuer {
    /// Reads the issuer's keys until the shutdown.
    pub fn start(options: Options, shutdown: Shutdown) -> Self {
        let Options { rules, scopes, source, pace } = options;
        Self {
            rules: rules.into(),
            scopes: scopes.into(),
            keys: Keys::start(source, pace, shutdown),
            cache: VerifiedCache::default(),
        }
    }

    /// The issuer URL.
    pub fn name(&self) -> &str {
        &self.rules.issuer
    }

    /// Returns true if this may be an issuer's token: it has several parts.
    pub fn may_have_issued(token: &str) -> bool {
        token.contains('.')
    }

    /// The principal of a token at a time, if it is cached.
    pub fn known(&self, token: &str, now: SystemTime) -> Option<Arc<Principal>> {
        self.cache.get(token, self.keys.generation(), now)
    }

    /// The principal of a token at a time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn principal(&self, token: &str, now: SystemTime) -> Result<Arc<Principal>, Refused> {
        let Verified { subject, scopes, expires, generation } = self.verify(token, now).await?;
        let name = Some(format!("{} {subject}", self.name()).into());
        let principal = Arc::new(Principal { kind: Kind::Issuer, name, scopes, expires: Some(expires) });
        self.cache.insert(token, generation, principal.clone());
        Ok(principal)
    }

    /// Validates a token at a time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, Refused> {
        let unverified = Unverified::parse(token, self.rules.token_type)?;
        let claims = Claims::validate(&unverified.payload, &self.rules, now)?;
        let scopes = self.scopes.of(&claims.members)?;
        let generation = self.check_signature(&unverified).await?;
        Ok(Verified { subject: claims.subject, scopes, expires: claims.expires, generation })
    }

    /// Verifies the signature; returns the generation of the keys used.
    async fn check_signature(&self, token: &Unverified<'_>) -> Result<u64, Refused> {
        let known = self.keys.known();
        match signature(&known, token) {
            Err(Mismatch::Key) => {}
            Ok(()) => return Ok(known.generation),
            Err(Mismatch::Signature) => return Err(WRONG_SIGNATURE),
        }
        let newer = self.keys.newer(&known).await;
        match signature(&newer, token) {
            Ok(()) => Ok(newer.generation),
            Err(Mismatch::Signature) => Err(WRONG_SIGNATURE),
            Err(Mismatch::Key) if newer.failed || newer.set.is_none() => Err(Refused::Unavailable),
            Err(Mismatch::Key) => Err(Refused::Invalid("it is signed with a key that is not in its issuer's key set")),
        }
    }
}

const WRONG_SIGNATURE: Refused = Refused::Invalid("its signature is invalid, or its algorithm does not match its key");

/// Why verification failed.
enum Mismatch {
    /// No candidate key is known; reading the keys again may provide one.
    Key,
    /// The signature is invalid for its key.
    Signature,
}

fn signature(known: &Known, token: &Unverified<'_>) -> Result<(), Mismatch> {
    let Some(set) = &known.set else { return Err(Mismatch::Key) };
    let kid = token.kid.as_deref();
    if set.candidates(token.algorithm, kid).any(|key| key.verifies(token.algorithm, token.signed, &token.signature)) {
        return Ok(());
    }
    // A token without a key id may have been signed with a new key.
    if kid.is_some_and(|kid| set.has(kid)) { Err(Mismatch::Signature) } else { Err(Mismatch::Key) }
}
