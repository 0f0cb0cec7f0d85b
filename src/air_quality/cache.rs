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

use super::entry::Entry;
use super::model::Selection;
use super::redis_cache::{Lock, RedisCache, Turn};
use super::{render, store};
use crate::db::conninfo::ConnInfo;
use crate::db::error::StoreError;
use crate::db::listen::listen;
use crate::db::pool::Pool;
use crate::db::position::Need;
use crate::db::reads::{Reader, Reads};
use crate::db::turns::Client;
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
    Left,
    /// The refresh panicked; the panic hook has logged it.
    #[error("the refresh ended early")]
    Defect,
}

/// A response and its origin.
#[derive(Debug)]
pub struct Served {
    /// The response.
    pub entry: Entry,
    /// Whether another request caused it to be built.
    pub cached: bool,
}

/// The cache of one server.
pub struct Cache {
    pool: Pool,
    reads: Reads,
    generation: Arc<watch::Sender<Option<Uuid>>>,
    keep: Keep,
    flights: Mutex<HashMap<Question, watch::Sender<Option<Outcome>>>>,
    _listening: JoinSet<()>, // ends with us
}

enum Keep {
    Process(Moka<String, Entry>),
    Redis(RedisCache),
}

/// A selection and the generation requested. A request after an import does not share the refresh of one before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    key: String,
    generation: Uuid,
}

/// The outcome of a refresh: the response, and whether this server read it from the database.
type Outcome = Result<(Entry, bool), AnswerError>;

impl Cache {
    /// Starts listening for changes and connecting to Redis, without waiting for either.
    pub fn start(pool: Pool, reads: Reads, conninfo: ConnInfo, options: CacheOptions) -> Arc<Self> {
        let generation = Arc::new(watch::Sender::new(None));
        let mut listening = JoinSet::new();
        listening.spawn(listen(conninfo, store::CHANGES, generation.clone()));
        let keep = match options.redis {
            Some(client) => Keep::Redis(RedisCache::start(client, options.redis_timeout, options.ttl)),
            None => Keep::Process(
                Moka::builder()
                    .max_capacity(PROCESS_MAX_BYTES)
                    .weigher(|key: &String, entry: &Entry| {
                        u32::try_from(key.len() + entry.body.len()).unwrap_or(u32::MAX)
                    })
                    .time_to_live(options.ttl)
                    .build(),
            ),
        };
        Arc::new(Self { pool, reads, generation, keep, flights: Mutex::default(), _listening: listening })
    }

    /// Returns the response to a client's selection, as of a moment after the request.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be read from the database.
    pub async fn answer(self: &Arc<Self>, selection: Selection, client: Client) -> Result<Served, AnswerError> {
        let generation = self.generation().await?;
        let question = Question { key: selection.key(), generation };
        let deadline = self.keep.deadline();
        if let Some(entry) = self.keep.get(&question, deadline).await {
            count("hit");
            return Ok(Served { entry, cached: true });
        }
        let (mut flight, first) = self.join(selection, question, deadline, client);
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
            Some(generation) => Ok(generation),
            None => store::generation(&self.pool).await,
        }
    }

    /// Records a generation read by a refresh, which may be ahead of the notification, so that the next request need not query
    /// it.
    fn learn(&self, asked: Uuid, seen: Uuid) {
        self.generation.send_if_modified(|known| {
            let behind = *known == Some(asked) && seen != asked;
            if behind {
                *known = Some(seen);
            }
            behind
        });
    }

    /// Joins the refresh of this response in progress, or starts one; returns true if it was started. It runs in its own task,
    /// so a client that disconnects does not abort it for others. When all have disconnected, the read is cancelled.
    fn join(
        self: &Arc<Self>,
        selection: Selection,
        question: Question,
        deadline: Instant,
        client: Client,
    ) -> (watch::Receiver<Option<Outcome>>, bool) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&question) {
            return (flight.subscribe(), false);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(question.clone(), sender.clone());
        drop(flights);
        let reader = self.reads.of(client, Need::Nothing);
        let flight = Flight { cache: self.clone(), question, outcome: sender };
        tokio::spawn(async move {
            match flight.cache.keep.take_turn(&flight.question, deadline).await {
                Turn::Done(entry) => {
                    flight.outcome.send_replace(Some(Ok((entry, false))));
                }
                Turn::Ours(lock) => {
                    let read = tokio::select! {
                        read = flight.cache.read(&reader, &selection, flight.question.generation) => read,
                        () = flight.left() => Err(AnswerError::Left),
                    };
                    if let Ok(entry) = &read {
                        flight.cache.learn(flight.question.generation, entry.generation);
                    }
                    flight.outcome.send_replace(Some(read.clone().map(|entry| (entry, true))));
                    // No request waits for this, and until it is done new requests share this flight.
                    flight.cache.keep.finish(&flight.question, read.ok(), lock).await;
                }
            }
        });
        (receiver, true)
    }

    async fn read(&self, reader: &Reader, selection: &Selection, asked: Uuid) -> Result<Entry, AnswerError> {
        metrics::counter!("air_quality_refreshes_total").increment(1);
        let mut readings = store::readings(reader, selection).await?;
        if readings.generation != asked && reader.may_be_behind() {
            // A replica may not have the requested generation yet; generations have no order.
            reader.raise(Need::Primary);
            readings = store::readings(reader, selection).await?;
        }
        if readings.rows.len() > store::READINGS_MAX {
            return Err(AnswerError::TooMany);
        }
        let (generation, format) = (readings.generation, selection.format);
        // A hundred thousand readings take tens of milliseconds, which must not block other requests.
        let body = tokio::task::spawn_blocking(move || render::body(&readings.rows, format));
        Ok(Entry::new(generation, body.await.map_err(|_| AnswerError::Defect)??))
    }
}

/// The body of a response: as cached, or marked as fresh for the request that caused the refresh.
pub fn body(served: &Served, format: Format) -> bytes::Bytes {
    if served.cached { served.entry.body.clone() } else { render::fresh(&served.entry.body, format) }
}

/// A refresh in progress; dropping it removes it from the list of refreshes.
struct Flight {
    cache: Arc<Cache>,
    question: Question,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flight {
    /// Returns when no request waits any more; a later request starts another refresh.
    async fn left(&self) {
        loop {
            self.outcome.closed().await;
            let mut flights = self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if self.outcome.receiver_count() == 0 {
                flights.remove(&self.question);
                return;
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // An abandoned refresh may have been replaced by another.
        if flights.get(&self.question).is_some_and(|flight| flight.same_channel(&self.outcome)) {
            flights.remove(&self.question);
        }
    }
}

impl Keep {
    fn deadline(&self) -> Instant {
        match self {
            Self::Process(_) => Instant::now(),
            Self::Redis(redis) => redis.deadline(),
        }
    }

    async fn get(&self, question: &Question, deadline: Instant) -> Option<Entry> {
        match self {
            Self::Process(moka) => moka.get(&question.key).filter(|entry| entry.generation == question.generation),
            Self::Redis(redis) => redis.get(&question.key, question.generation, deadline).await,
        }
    }

    /// Looks up again before a refresh, because the previous one may have ended since.
    async fn take_turn(&self, question: &Question, deadline: Instant) -> Turn {
        match self {
            Self::Process(_) => self.get(question, deadline).await.map_or(Turn::Ours(None), Turn::Done),
            Self::Redis(redis) => redis.take_turn(&question.key, question.generation, deadline).await,
        }
    }

    /// Stores the outcome of a refresh, if successful.
    async fn finish(&self, question: &Question, read: Option<Entry>, lock: Option<Lock>) {
        match (self, read) {
            (Self::Process(moka), Some(entry)) => moka.insert(question.key.clone(), entry),
            (Self::Redis(redis), Some(entry)) => redis.put(&question.key, &entry, lock).await,
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
