//! Answers that are kept: from the request for a selection to its body, by way of the cache or of PostgreSQL.
//!
//! Invariants. An answer is delivered from the cache only if it was made of the current generation of the readings, and
//! it is labelled with the generation that was read in the same statement: neither an import nor a slow refresh can
//! leave an old answer behind. In this process one refresh per answer runs at a time, and whoever asks meanwhile shares
//! its outcome; over all replicas a lock in Redis does the same. Without Redis, answers come from PostgreSQL.

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
use crate::db::fair_queue::Client;
use crate::db::listen::listen;
use crate::db::pool::Pool;
use crate::db::position::Need;
use crate::db::reads::{Reader, Reads};
use crate::http::format::Format;

/// Most bytes that answers in the process may take together; the least used ones make room.
const PROCESS_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Where answers are kept, and for how long.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// How long an answer may be delivered after it was made.
    pub ttl: Duration,
    /// Redis; in the process when there is none.
    pub redis: Option<redis::Client>,
    /// Longest that a request may wait for Redis, all its commands together.
    pub redis_timeout: Duration,
}

/// Why a selection has no answer.
#[derive(Debug, Clone, Error)]
pub enum AnswerError {
    /// The database's reason.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than [`store::READINGS_MAX`] readings fit.
    #[error("too many readings")]
    TooMany,
    /// Nobody waited for it any more.
    #[error("everybody who asked has left")]
    Left,
    /// The refresh panicked; the hook has logged it.
    #[error("the refresh ended early")]
    Defect,
}

/// An answer on its way to a client.
#[derive(Debug)]
pub struct Served {
    /// The answer.
    pub entry: Entry,
    /// Whether somebody else's question made it.
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

/// What is asked of which state of the readings. Who asks after an import does not share the refresh of who asked before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    key: String,
    generation: Uuid,
}

/// What a refresh came to: the answer, and whether this server read it from the database.
type Outcome = Result<(Entry, bool), AnswerError>;

impl Cache {
    /// Begins to listen for changes and to connect to Redis; neither is waited for.
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

    /// The answer to a client's selection, as of a moment after the question.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be read from the database either.
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
            Err(_) => None, // the refresh is gone without a word
        };
        let (entry, read) = outcome.unwrap_or_else(|| Err(AnswerError::Defect))?;
        let cached = !(first && read);
        count(if cached { "shared" } else { "miss" });
        Ok(Served { entry, cached })
    }

    /// The current generation: as the last notification left it, or asked for while the connection that listens is lost.
    async fn generation(&self) -> Result<Uuid, StoreError> {
        let known = *self.generation.borrow();
        match known {
            Some(generation) => Ok(generation),
            None => store::generation(&self.pool).await,
        }
    }

    /// What a refresh has seen may be ahead of the announcement: the next question need not read it again.
    fn learn(&self, asked: Uuid, seen: Uuid) {
        self.generation.send_if_modified(|known| {
            let behind = *known == Some(asked) && seen != asked;
            if behind {
                *known = Some(seen);
            }
            behind
        });
    }

    /// The refresh of this answer that is under way, or a new one, which is true then. It runs on its own: a client
    /// that leaves does not take it away from the others. When all have left, the reading ends.
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
                    // Nobody waits for this, and until it is done everybody who asks shares this flight.
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
            // A replica may not have the generation that was asked for yet; generations have no order.
            reader.raise(Need::Primary);
            readings = store::readings(reader, selection).await?;
        }
        if readings.rows.len() > store::READINGS_MAX {
            return Err(AnswerError::TooMany);
        }
        let (generation, format) = (readings.generation, selection.format);
        // A hundred thousand readings take tens of milliseconds, for which other requests should not wait.
        let body = tokio::task::spawn_blocking(move || render::body(&readings.rows, format));
        Ok(Entry::new(generation, body.await.map_err(|_| AnswerError::Defect)??))
    }
}

/// The body for whoever is served: what is kept, or what the first asker gets.
pub fn body(served: &Served, format: Format) -> bytes::Bytes {
    if served.cached { served.entry.body.clone() } else { render::fresh(&served.entry.body, format) }
}

/// A refresh under way; it leaves the list of refreshes however it ends.
struct Flight {
    cache: Arc<Cache>,
    question: Question,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flight {
    /// Returns when nobody waits for the answer any more; who asks after that begins another refresh.
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
        // Another one may have taken the place of one that was left.
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

    /// Looks again before a refresh: the one before may have ended since the first look.
    async fn take_turn(&self, question: &Question, deadline: Instant) -> Turn {
        match self {
            Self::Process(_) => self.get(question, deadline).await.map_or(Turn::Ours(None), Turn::Done),
            Self::Redis(redis) => redis.take_turn(&question.key, question.generation, deadline).await,
        }
    }

    /// Stores what a refresh came to, if it came to anything.
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
