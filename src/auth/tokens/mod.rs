//! API tokens: creating them, and finding the principal of one.
//!
//! Invariants. A token is stored as its SHA-256 and shown once, when it is created. Cached data about a token is valid for one
//! generation of the token table. The generation is followed with `LISTEN`; while it is unknown because the connection is lost
//! or silent, every request queries the database. A server therefore accepts a revoked token no longer than the notification
//! takes, or than `CURRENT_FOR`.

pub mod format;
pub mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use moka::sync::Cache;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::is_readable;
use super::principal::{Kind, Principal};
use super::scope::Scopes;
use crate::db::conninfo::ConnInfo;
use crate::db::error::StoreError;
use crate::db::listen::{Seen, listen};
use crate::db::pool::Pool;
use crate::duration::long_span;
use crate::shutdown::Shutdown;
use format::{ApiToken, is_well_formed};
use store::{Listed, New};

/// Maximum number of cached tokens, including unknown ones.
const CACHED_MAX: u64 = 10_000;

/// How long a generation is used without another read, which several heartbeats attempt: a change is in effect within a second,
/// also if the connection with the notifications is dead but not closed.
const CURRENT_FOR: Duration = Duration::from_millis(950);

/// Interval at which usage counts are written.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The tokens, with a cache.
pub struct Tokens {
    pool: Pool,
    generation: Arc<watch::Sender<Option<Seen>>>,
    known: Cache<[u8; 32], Known>,
    uses: Arc<Mutex<HashMap<Uuid, (i64, SystemTime)>>>,
    _working: JoinSet<()>, // the tasks end with this value
}

/// A cache entry.
#[derive(Debug, Clone)]
struct Known {
    generation: Uuid,
    token: Result<(Uuid, Arc<Principal>), Unusable>,
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No such token exists.
    Unknown,
    /// It was revoked.
    Revoked,
    /// It has expired.
    Expired,
}

impl Unusable {
    /// The reason for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "the token is unknown",
            Self::Revoked => "the token was revoked",
            Self::Expired => "the token has expired",
        }
    }
}

impl Tokens {
    /// Starts following changes and counting uses; returns immediately.
    pub fn start(pool: Pool, conninfo: ConnInfo, shutdown: Shutdown) -> Self {
        let generation = Arc::new(watch::Sender::new(None));
        let uses = Arc::default();
        let mut working = JoinSet::new();
        working.spawn(listen(conninfo, store::CHANGES, generation.clone()));
        working.spawn(count(pool.clone(), Arc::clone(&uses), shutdown));
        Self { pool, generation, known: Cache::new(CACHED_MAX), uses, _working: working }
    }

    /// The principal of a token, if it is cached.
    pub fn known(&self, token: &str) -> Option<Result<Arc<Principal>, Unusable>> {
        let Some(known) = self.known.get(&format::hash(token)) else {
            return (!is_well_formed(token)).then_some(Err(Unusable::Unknown));
        };
        let seen = *self.generation.borrow();
        (seen?.within(CURRENT_FOR) == Some(known.generation)).then(|| self.usable(known.token))
    }

    /// The principal of a token, from the database.
    ///
    /// # Errors
    /// As the pool.
    pub async fn find(&self, token: &str) -> Result<Result<Arc<Principal>, Unusable>, StoreError> {
        let hash = format::hash(token);
        let found = store::find(&self.pool, &hash).await?;
        let token = match found.token {
            Some(token) if bool::from(token.hash.ct_eq(&hash)) => {
                if token.is_revoked {
                    Err(Unusable::Revoked)
                } else {
                    let principal = Principal {
                        kind: Kind::Token,
                        name: Some(format!("token:{}", token.id).into()),
                        // Scopes of a newer release that are unknown here permit nothing.
                        scopes: Scopes::of_claim(token.scopes.split(' ')),
                        expires: token.expires_at.map(SystemTime::from),
                    };
                    Ok((token.id, Arc::new(principal)))
                }
            }
            _ => Err(Unusable::Unknown),
        };
        self.known.insert(hash, Known { generation: found.generation, token: token.clone() });
        Ok(self.usable(token))
    }

    fn usable(&self, token: Result<(Uuid, Arc<Principal>), Unusable>) -> Result<Arc<Principal>, Unusable> {
        let (id, principal) = token?;
        let now = SystemTime::now();
        if !principal.is_current(now) {
            return Err(Unusable::Expired);
        }
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, last) = uses.entry(id).or_insert((0, now));
        *count += 1;
        *last = now;
        Ok(principal)
    }

    /// Writes the uses counted since the last time; called at the end, when nothing is counted any more.
    pub async fn write_uses(&self) {
        write(&self.pool, &self.uses).await;
    }
}

/// Writes uses periodically.
async fn count(pool: Pool, uses: Arc<Mutex<HashMap<Uuid, (i64, SystemTime)>>>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            // The sleep only limits how often uses are written.
            () = tokio::time::sleep(COUNT_EVERY) => {}
            () = shutdown.requested() => return,
        }
        write(&pool, &uses).await;
    }
}

async fn write(pool: &Pool, uses: &Mutex<HashMap<Uuid, (i64, SystemTime)>>) {
    let taken = std::mem::take(&mut *uses.lock().unwrap_or_else(PoisonError::into_inner));
    if taken.is_empty() {
        return;
    }
    let (ids, (counts, times)): (Vec<_>, (Vec<_>, Vec<_>)) = taken.iter().map(|(id, used)| (*id, *used)).unzip();
    let times: Vec<Timestamp> = times.into_iter().map(|at| Timestamp::try_from(at).unwrap_or_default()).collect();
    if let Err(error) = store::count(pool, &ids, &counts, &times).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "cannot write how often tokens were used");
        let mut uses = uses.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, (count, last)) in taken {
            let (known, at) = uses.entry(id).or_insert((0, last));
            *known += count;
            *at = last.max(*at);
        }
    }
}

/// Maximum characters of a name.
pub const NAME_MAX_CHARS: usize = 100;

/// The default lifetime of a token.
pub const LIFETIME_DEFAULT: &str = "90d";

/// The maximum finite lifetime: ten years.
const LIFETIME_MAX_HOURS: u64 = 10 * 366 * 24;

/// Returns true if this is a valid name for a token.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_MAX_CHARS).contains(&text.chars().count()) && is_readable(text)
}

/// Parses a lifetime; `never` is unlimited.
///
/// # Errors
/// If it is invalid, with the rule.
pub fn lifetime(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" {
        return Ok(None);
    }
    long_span::<LIFETIME_MAX_HOURS>(text).map(Some).map_err(|wanted| format!("{wanted}, or never"))
}

/// The properties of a token to be created.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// The name for people.
    pub name: String,
    /// The permitted scopes.
    pub scopes: Scopes,
    /// The lifetime; unlimited if `None`.
    pub lifetime: Option<Duration>,
}

/// Creates a token.
///
/// # Errors
/// As the database, or if the system has no random bytes.
pub async fn create(
    client: &tokio_postgres::Client,
    wanted: &TokenSpec,
    by: Option<&str>,
) -> Result<(ApiToken, Listed), StoreError> {
    insert(client, &wanted.name, &wanted.scopes.to_string(), wanted.lifetime, by).await
}

async fn insert(
    client: &impl tokio_postgres::GenericClient,
    name: &str,
    scopes: &str,
    lifetime: Option<Duration>,
    created_by: Option<&str>,
) -> Result<(ApiToken, Listed), StoreError> {
    let token = ApiToken::generate().map_err(|_| StoreError::unavailable("the system has no random bytes"))?;
    let seconds = lifetime.map(|lifetime| lifetime.as_secs_f64());
    let new = New { name, hash: format::hash(token.reveal()), scopes, created_by, seconds };
    Ok((token, store::insert(client, &new).await?))
}

/// Replaces a token by a new one with the same name, scopes and lifetime, which starts now. The old one expires after
/// `overlap`. `None` if there is no such token, or if it is not active.
///
/// # Errors
/// As [`create`].
pub async fn rotate(
    client: &mut tokio_postgres::Client,
    id: Uuid,
    overlap: Duration,
    by: Option<&str>,
) -> Result<Option<(ApiToken, Listed)>, StoreError> {
    let transaction = client.transaction().await?;
    let Some(old) = store::one(&transaction, id).await?.filter(Listed::is_usable) else { return Ok(None) };
    let lifetime = old.lifetime.map(Duration::from_secs_f64);
    let made = insert(&transaction, &old.name, &old.scopes, lifetime, by).await?;
    if overlap.is_zero() {
        store::revoke(&transaction, id, by).await?;
    } else {
        store::end_soon(&transaction, id, overlap.as_secs_f64()).await?;
    }
    transaction.commit().await?;
    Ok(Some(made))
}

impl Listed {
    /// Returns true if the token is active.
    pub fn is_usable(&self) -> bool {
        self.state() == State::Active
    }

    /// The state of the token.
    pub fn state(&self) -> State {
        if self.revoked_at.is_some() {
            State::Revoked
        } else if self.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            State::Expired
        } else {
            State::Active
        }
    }
}

/// The state of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Valid.
    Active,
    /// Expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl State {
    /// The name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::pool::{PoolKind, PoolOptions};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_cached_token_is_looked_up_again_if_no_change_could_have_been_announced() {
        let options = PoolOptions {
            kind: PoolKind::Keys,
            size: 1,
            checkout_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(1),
        };
        let nowhere = ConnInfo::from_config(tokio_postgres::Config::new()).expect("no TLS is required");
        let tokens = Tokens {
            pool: Pool::new(&nowhere, &options),
            generation: Arc::new(watch::Sender::new(None)),
            known: Cache::new(1),
            uses: Arc::default(),
            _working: JoinSet::new(),
        };
        let text = ApiToken::generate().expect("random bytes");
        let principal = Arc::new(Principal::anonymous(Scopes::default()));
        let known = Known { generation: Uuid::nil(), token: Ok((Uuid::nil(), principal)) };
        tokens.known.insert(format::hash(text.reveal()), known);
        assert!(tokens.known(text.reveal()).is_none());
        tokens.generation.send_replace(Some(Seen { value: Uuid::nil(), at: Instant::now() }));
        assert!(tokens.known(text.reveal()).is_some_and(|found| found.is_ok()));
        // The connection is open and silent.
        tokio::time::advance(CURRENT_FOR).await;
        assert!(tokens.known(text.reveal()).is_none());
        tokens.generation.send_replace(Some(Seen { value: Uuid::nil(), at: Instant::now() }));
        assert!(tokens.known(text.reveal()).is_some_and(|found| found.is_ok()));
    }
}
