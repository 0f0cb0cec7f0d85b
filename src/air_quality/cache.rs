//! The response cache: maps a selection to its body, from the cache or from PostgreSQL.
//!
//! Invariants: a response is served from the cache only if it was built from the current generation of the readings, and it is
//! labelled with the generation read in the same statement, so neither an import nor a slow refresh can leave a stale response
//! behind. One refresh per response runs at a time in this process, and concurrent requests share its outcome; a lock in Redis
//! ensures the same across replicas. Without Redis, responses come from PostgreSQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache as Moka;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::cached_response::CachedResponse;
use super::model::Selection;
use super::redis_cache::{Acquisition, Lock, RedisCache};
use super::{render, store};
use crate::db::conninfo::ConnInfo;
use crate::db::error::StoreError;
use crate::db::fair_queue::Client;
use crate::db::listen::{Seen, listen};
use crate::db::pool::Pool;
use crate::db::position::Consistency;
use crate::db::reads::{Reader, Reads};
use crate::http::format::Format;

/// Maximum total size of responses cached in the process; the least used are evicted.
const PROCESS_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Where responses are cached, and for how long.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// Time to live of a response.
    pub ttl: Duration,
    /// Redis; responses are cached in the process if absent.
    pub redis: Option<redis::Client>,
    /// Maximum time that a request may wait for Redis, all its commands together.
    pub redis_timeout: Duration,
}

/// Why a selection has no response.
#[derive(Debug, Clone, Error)]
pub enum AnswerError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than [`store::READINGS_MAX`] readings match.
    #[error("too many readings")]
    TooMany,
    /// No request waits for it any more.
    #[error("no request waits for the refresh any more")]
    Abandoned,
    /// The refresh panicked; the panic hook has logged it.
    #[error("the refresh ended early")]
    Defect,
}

/// A response and its origin.
#[derive(Debug)]
pub struct Served {
    /// The response.
    pub entry: CachedResponse,
    /// Whether another request caused it to be built.
    pub cached: bool,
}

/// The cache of one server.
pub struct Cache {
    pool: Pool,
    reads: Reads,
    generation: Arc<watch::Sender<Option<Seen>>>,
    backend: Backend,
    flights: Mutex<HashMap<CacheKey, watch::Sender<Option<Outcome>>>>,
    _listening: JoinSet<()>, // ends with us
}

enum Backend {
    Process(Moka<String, CachedResponse>),
    Redis(RedisCache),
}

/// A selection and the generation requested. A request after an import does not share the refresh of one before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    key: String,
    generation: Uuid,
}

/// The outcome of a refresh: the response, and whether this server read it from the database.
type Outcome = Result<(CachedResponse, bool), AnswerError>;

impl Cache {
    /// Starts listening for changes and connecting to Redis, without waiting for either.
    pub fn start(pool: Pool, reads: Reads, conninfo: ConnInfo, options: CacheOptions) -> Arc<Self> {
        let generation = Arc::new(watch::Sender::new(None));
        let mut listening = JoinSet::new();
        listening.spawn(listen(conninfo, store::CHANGES, generation.clone()));
        let backend = match options.redis {
            Some(client) => Backend::Redis(RedisCache::start(client, options.redis_timeout, options.ttl)),
            None => Backend::Process(
                Moka::builder()
                    .max_capacity(PROCESS_MAX_BYTES)
                    .weigher(|key: &String, entry: &CachedResponse| {
                        u32::try_from(key.len() + entry.body.len()).unwrap_or(u32::MAX)
                    })
                    .time_to_live(options.ttl)
                    .build(),
            ),
        };
        Arc::new(Self { pool, reads, generation, backend, flights: Mutex::default(), _listening: listening })
    }

    /// Returns the response to a client's selection, as of a moment after the request.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be read from the database.
    pub async fn answer(self: &Arc<Self>, selection: Selection, client: Client) -> Result<Served, AnswerError> {
        let generation = self.generation().await?;
        let cache_key = CacheKey { key: selection.key(), generation };
        let deadline = self.backend.deadline();
        if let Some(entry) = self.backend.get(&cache_key, deadline).await {
            count("hit");
            return Ok(Served { entry, cached: true });
        }
        let (mut flight, first) = self.join(selection, cache_key, deadline, client);
        let outcome = match flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None, // the refresh ended without an outcome
        };
        let (entry, read) = outcome.unwrap_or_else(|| Err(AnswerError::Defect))?;
        let cached = !(first && read);
        count(if cached { "shared" } else { "miss" });
        Ok(Served { entry, cached })
    }

    /// The current generation: from the last notification, or queried while the listening connection is lost.
    async fn generation(&self) -> Result<Uuid, StoreError> {
        let known = *self.generation.borrow();
        match known {
            Some(seen) => Ok(seen.value),
            None => store::generation(&self.pool).await,
        }
    }

    /// Records a generation read by a refresh, which may be ahead of the notification, so that the next request need not query
    /// it.
    fn record_generation(&self, requested: Uuid, seen: Uuid) {
        self.generation.send_if_modified(|known| {
            let Some(known) = known.as_mut().filter(|known| known.value == requested) else { return false };
            known.value = seen;
            seen != requested
        });
    }

    /// Joins the refresh of this response in progress, or starts one; returns true if it was started. It runs in its own task,
    /// so a client that disconnects does not abort it for others. When all have disconnected, the read is cancelled.
    fn join(
        self: &Arc<Self>,
        selection: Selection,
        cache_key: CacheKey,
        deadline: Instant,
        client: Client,
    ) -> (watch::Receiver<Option<Outcome>>, bool) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&cache_key) {
            return (flight.subscribe(), false);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(cache_key.clone(), sender.clone());
        drop(flights);
        let reader = self.reads.of(client, Consistency::Eventual);
        let flight = Flight { cache: self.clone(), cache_key, outcome: sender };
        tokio::spawn(async move {
            match flight.cache.backend.acquire(&flight.cache_key, deadline).await {
                Acquisition::Refreshed(entry) => {
                    flight.outcome.send_replace(Some(Ok((entry, false))));
                }
                Acquisition::Granted(lock) => {
                    let read = tokio::select! {
                        read = flight.cache.read(&reader, &selection, flight.cache_key.generation) => read,
                        () = flight.abandoned() => Err(AnswerError::Abandoned),
                    };
                    if let Ok(entry) = &read {
                        flight.cache.record_generation(flight.cache_key.generation, entry.generation);
                    }
                    flight.outcome.send_replace(Some(read.clone().map(|entry| (entry, true))));
                    // No request waits for this, and until it is done new requests share this flight.
                    flight.cache.backend.finish(&flight.cache_key, read.ok(), lock).await;
                }
            }
        });
        (receiver, true)
    }

    async fn read(
        &self,
        reader: &Reader,
        selection: &Selection,
        requested: Uuid,
    ) -> Result<CachedResponse, AnswerError> {
        metrics::counter!("air_quality_refreshes_total").increment(1);
        let mut readings = store::readings(reader, selection).await?;
        if readings.generation != requested && reader.may_be_behind() {
            // A replica may not have the requested generation yet; generations have no order.
            reader.raise(Consistency::Primary);
            readings = store::readings(reader, selection).await?;
        }
        if readings.rows.len() > store::READINGS_MAX {
            return Err(AnswerError::TooMany);
        }
        let (generation, format) = (readings.generation, selection.format);
        // A hundred thousand readings take tens of milliseconds, which must not block other requests.
        let body = tokio::task::spawn_blocking(move || render::body(&readings.rows, format));
        Ok(CachedResponse::new(generation, body.await.map_err(|_| AnswerError::Defect)??))
    }
}

/// The body of a response: as cached, or marked as fresh for the request that caused the refresh.
pub fn body(served: &Served, format: Format) -> bytes::Bytes {
    if served.cached { served.entry.body.clone() } else { render::fresh(&served.entry.body, format) }
}

/// A refresh in progress; dropping it removes it from the list of refreshes.
struct Flight {
    cache: Arc<Cache>,
    cache_key: CacheKey,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flight {
    /// Returns when no request waits any more; a later request starts another refresh.
    async fn abandoned(&self) {
        loop {
            self.outcome.closed().await;
            let mut flights = self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if self.outcome.receiver_count() == 0 {
                flights.remove(&self.cache_key);
                return;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // An abandoned refresh may have been replaced by another.
        if flights.get(&self.cache_key).is_some_and(|flight| flight.same_channel(&self.outcome)) {
            flights.remove(&self.cache_key);
        }
    }
}

impl Backend {
    fn deadline(&self) -> Instant {
        match self {
            Self::Process(_) => Instant::now(),
            Self::Redis(redis) => redis.deadline(),
        }
    }

    async fn get(&self, cache_key: &CacheKey, deadline: Instant) -> Option<CachedResponse> {
        match self {
            Self::Process(moka) => moka.get(&cache_key.key).filter(|entry| entry.generation == cache_key.generation),
            Self::Redis(redis) => redis.get(&cache_key.key, cache_key.generation, deadline).await,
        }
    }

    /// Looks up again before a refresh, because the previous one may have ended since.
    async fn acquire(&self, cache_key: &CacheKey, deadline: Instant) -> Acquisition {
        match self {
            Self::Process(_) => {
                self.get(cache_key, deadline).await.map_or(Acquisition::Granted(None), Acquisition::Refreshed)
            }
            Self::Redis(redis) => redis.acquire(&cache_key.key, cache_key.generation, deadline).await,
        }
    }

    /// Stores the outcome of a refresh, if successful.
    async fn finish(&self, cache_key: &CacheKey, read: Option<CachedResponse>, lock: Option<Lock>) {
        match (self, read) {
            (Self::Process(moka), Some(entry)) => moka.insert(cache_key.key.clone(), entry),
            (Self::Redis(redis), Some(entry)) => redis.put(&cache_key.key, &entry, lock).await,
            (Self::Process(_), None) => {}
            (Self::Redis(redis), None) => {
                if let Some(lock) = lock {
                    redis.release(&lock, redis.deadline()).await;
                }
            }
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("cache_requests_total", "result" => result).increment(1);
}
