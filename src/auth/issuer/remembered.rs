//! Tokens that were found good, until they expire or the issuer's keys change: a signature costs more than everything else that is done for
//! a single row.
//!
//! Only good tokens are kept, by their SHA-256: whoever reads the memory finds no token, and nobody can make another token pass for one.

use std::sync::Arc;
use std::time::SystemTime;

use moka::sync::Cache;
use ring::digest::{SHA256, digest};

use crate::auth::principal::Principal;

/// More clients than one server has within the minutes that a token lives. Each takes about 300 bytes.
const TOKENS_MAX: u64 = 10_000;

type Hash = [u8; 32];

/// The tokens. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Remembered(Cache<Hash, Entry>);

#[derive(Clone)]
struct Entry {
    principal: Arc<Principal>,
    /// Of the keys that it was verified with.
    generation: u64,
}

fn hash(token: &str) -> Hash {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl Default for Remembered {
    fn default() -> Self {
        Self(Cache::new(TOKENS_MAX))
    }
}

impl Remembered {
    /// Whom a token proves at this time, if it was verified with these keys.
    pub fn get(&self, token: &str, generation: u64, now: SystemTime) -> Option<Arc<Principal>> {
        let entry = self.0.get(&hash(token))?;
        (entry.generation == generation && entry.principal.is_current(now)).then_some(entry.principal)
    }

    /// Keeps a token that is good.
    pub fn keep(&self, token: &str, generation: u64, principal: Arc<Principal>) {
        self.0.insert(hash(token), Entry { principal, generation });
    }
}
