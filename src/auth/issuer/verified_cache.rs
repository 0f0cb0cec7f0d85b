//! A cache of valid tokens, until they expire or the issuer's keys change: verifying a signature costs more than the rest of a
//! single-row request.
//!
//! Only valid tokens are stored, by their SHA-256: reading the memory reveals no token, and no other token can match an entry.

use std::sync::Arc;
use std::time::SystemTime;

use moka::sync::Cache;
use ring::digest::{SHA256, digest};

use crate::auth::principal::Principal;

/// More clients than one server has within the lifetime of a token, which is minutes. Each entry takes about 300 bytes.
const TOKENS_MAX: u64 = 10_000;

type Hash = [u8; 32];

/// The cache. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct VerifiedCache(Cache<Hash, Entry>);

#[derive(Clone)]
struct Entry {
    principal: Arc<Principal>,
    /// The generation of the keys that it was verified with.
    generation: u64,
}

fn hash(token: &str) -> Hash {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl Default for VerifiedCache {
    fn default() -> Self {
        Self(Cache::new(TOKENS_MAX))
    }
}

impl VerifiedCache {
    /// The principal of a token at this time, if it was verified with keys of this generation.
    pub fn get(&self, token: &str, generation: u64, now: SystemTime) -> Option<Arc<Principal>> {
        let entry = self.0.get(&hash(token))?;
        (entry.generation == generation && entry.principal.is_current(now)).then_some(entry.principal)
    }

    /// Stores a valid token.
    pub fn insert(&self, token: &str, generation: u64, principal: Arc<Principal>) {
        self.0.insert(hash(token), Entry { principal, generation });
    }
}
