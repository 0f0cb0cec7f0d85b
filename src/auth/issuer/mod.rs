//! Access tokens of an identity provider (RFC 9068), judged as RFC 8725 says.
//!
//! A token is taken apart (`jws`), its claims are judged (`claims`), and only then a key is looked for (`keys`) and the
//! signature checked: what would be refused anyway asks nobody for keys. A refusal's reason is a fixed sentence, so no part of a
//! token can get into an answer or a log.

pub mod algorithm;
mod claims;
pub mod fetch;
mod json;
mod jws;
pub mod key_set;
pub mod keys;
mod remembered;
pub mod rules;
pub mod scope_claim;
pub mod source;

use std::sync::Arc;
use std::time::SystemTime;

use self::claims::Claims;
use self::jws::Unverified;
use self::keys::{Keys, Known, Pace};
use self::remembered::Remembered;
use self::rules::{Refused, Rules};
use self::scope_claim::ScopeRules;
use self::source::Source;
use crate::auth::principal::{Kind, Principal};
use crate::auth::scope::Scopes;
use crate::shutdown::Shutdown;

/// Everything about the identity provider.
#[derive(Clone)]
pub struct Options {
    /// What every token must be.
    pub rules: Rules,
    /// What it permits.
    pub scopes: ScopeRules,
    /// Where the keys are.
    pub source: Source,
    /// How often they are read.
    pub pace: Pace,
}

/// A token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its `sub`.
    pub subject: String,
    /// What it permits.
    pub scopes: Scopes,
    /// From when on it is refused: its `exp` and the leeway.
    pub expires: SystemTime,
    /// Of the issuer's keys that it was verified with; a later one may not have its key.
    pub generation: u64,
}

/// The identity provider whose tokens are taken. Cheap to clone; clones share its keys.
#[derive(Clone)]
pub struct Issuer {
    rules: Arc<Rules>,
    scopes: Arc<ScopeRules>,
    keys: Keys,
    remembered: Remembered,
}

impl Issuer {
    /// Begins to read the issuer's keys, until the shutdown.
    pub fn start(options: Options, shutdown: Shutdown) -> Self {
        let Options { rules, scopes, source, pace } = options;
        Self {
            rules: rules.into(),
            scopes: scopes.into(),
            keys: Keys::start(source, pace, shutdown),
            remembered: Remembered::default(),
        }
    }

    /// The name of the issuer.
    pub fn name(&self) -> &str {
        &self.rules.issuer
    }

    /// Whether this may be a token of an issuer: it has parts.
    pub fn is_meant(token: &str) -> bool {
        token.contains('.')
    }

    /// Whom a token proves at a time, if it was found good before.
    pub fn known(&self, token: &str, now: SystemTime) -> Option<Arc<Principal>> {
        self.remembered.get(token, self.keys.generation(), now)
    }

    /// Whom a token proves at a time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn principal(&self, token: &str, now: SystemTime) -> Result<Arc<Principal>, Refused> {
        let Verified { subject, scopes, expires, generation } = self.verify(token, now).await?;
        let name = Some(format!("{} {subject}", self.name()).into());
        let principal = Arc::new(Principal { kind: Kind::Issuer, name, scopes, expires: Some(expires) });
        self.remembered.keep(token, generation, principal.clone());
        Ok(principal)
    }

    /// Judges a token at a time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, Refused> {
        let unverified = Unverified::parse(token, self.rules.token_type)?;
        let claims = Claims::judge(&unverified.payload, &self.rules, now)?;
        let scopes = self.scopes.of(&claims.members)?;
        let generation = self.check_signature(&unverified).await?;
        Ok(Verified { subject: claims.subject, scopes, expires: claims.expires, generation })
    }

    /// The generation of the keys that the signature was checked with.
    async fn check_signature(&self, token: &Unverified<'_>) -> Result<u64, Refused> {
        let known = self.keys.known();
        match signature(&known, token) {
            Err(Lacking::Key) => {}
            Ok(()) => return Ok(known.generation),
            Err(Lacking::Signature) => return Err(WRONG_SIGNATURE),
        }
        let newer = self.keys.newer(&known).await;
        match signature(&newer, token) {
            Ok(()) => Ok(newer.generation),
            Err(Lacking::Signature) => Err(WRONG_SIGNATURE),
            Err(Lacking::Key) if newer.failed || newer.set.is_none() => Err(Refused::Unavailable),
            Err(Lacking::Key) => Err(Refused::Invalid("it is signed with a key that its issuer does not have")),
        }
    }
}

const WRONG_SIGNATURE: Refused =
    Refused::Invalid("its signature is wrong, or made by an algorithm that its key is not for");

/// What is missing for a token to be good.
enum Lacking {
    /// A key that it may have been signed with: a later reading may bring it.
    Key,
    /// A signature that fits its key.
    Signature,
}

fn signature(known: &Known, token: &Unverified<'_>) -> Result<(), Lacking> {
    let Some(set) = &known.set else { return Err(Lacking::Key) };
    let kid = token.kid.as_deref();
    if set.candidates(token.algorithm, kid).any(|key| key.verifies(token.algorithm, token.signed, &token.signature)) {
        return Ok(());
    }
    // A token that names no key may have been signed with a new one.
    if kid.is_some_and(|kid| set.has(kid)) { Err(Lacking::Signature) } else { Err(Lacking::Key) }
}
