//! Reads many rows: on dedicated sessions, through a fair queue, and with lower priority than rows by key.
//!
//! A statement whose cost grows with the table keeps one of PostgreSQL's processors busy for as long as it runs. While rows are
//! also requested by key, a long read is followed by a pause, so that such statements occupy only a part of the processors.
//!
//! If there is a replica, reads use it as long as it has replayed what the reader requires. If not, or if it fails, this read
//! and all later ones for the same answer use the primary. No read for an answer returns older data than an earlier read for
//! the same answer.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use tokio_postgres::Row;

use super::error::StoreError;
use super::fair_queue::{Client, FairQueue, Permit};
use super::operation::DbOperation;
use super::pool::{Pool, PoolKind, retried};
use super::position::Need;
use super::replica::{Followed, REPLICA_READS, Replica, Unfit};
use super::result_size::ResultSize;
use super::session::{DEADLINE_GRACE, Params, Query, Session};
use super::wait_time::Waiting;

/// Name of the gauge of running list reads.
pub const LISTS_IN_FLIGHT: &str = "lists_in_flight";
/// Name of the counter of list reads that were followed by a pause.
pub const LISTS_PAUSED: &str = "lists_paused_total";

/// Longest wait for a permit once an answer has begun, because giving up would truncate it.
const MAX_WAIT_MIDWAY: Duration = Duration::from_secs(30);

/// A read shorter than this is not followed by a pause: pages, and chunks of lists in the order of an index.
const SHORT: Duration = Duration::from_millis(20);
/// Ratio of a pause to the read before it; the pause is limited by [`PAUSE_MAX`].
const PAUSE_FACTOR: u32 = 3;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Checkouts per second of sessions for rows by key above which reads are paused.
const BUSY: f64 = 50.0;

/// Initial and maximum interval between checks of the replica's replay position while a reader waits for it.
const REPLAY_CHECK_INTERVAL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// Reads of many rows.
#[derive(Clone)]
pub struct Reads {
    pool: Pool,
    keys: Pool,
    queue: FairQueue,
    max_wait: Duration,
    followed: Option<Followed>,
    in_flight: Gauge,
    paused: Counter,
}

impl Reads {
    /// Uses a dedicated pool beside the one for rows by key, and the replica if there is one; the wait for the first permit is
    /// limited to `max_wait`.
    pub fn new(pool: Pool, keys: Pool, max_wait: Duration, followed: Option<Followed>) -> Self {
        Self {
            queue: FairQueue::for_sessions(pool.size()),
            pool,
            keys,
            max_wait,
            followed,
            in_flight: metrics::gauge!(LISTS_IN_FLIGHT),
            paused: metrics::counter!(LISTS_PAUSED),
        }
    }

    /// The pool for lists on the primary.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The pools for lists.
    pub fn pools(&self) -> impl Iterator<Item = (PoolKind, &Pool)> {
        let replica = self.followed.as_ref().map(|followed| (PoolKind::Replica, &followed.replica.pool));
        std::iter::once((PoolKind::Lists, &self.pool)).chain(replica)
    }

    /// Whether there is a replica, so that a reader's requirement matters.
    pub fn has_replica(&self) -> bool {
        self.followed.is_some()
    }

    /// Creates a reader for a client with this requirement.
    pub fn of(&self, client: Client, need: Need) -> Reader {
        let need = self.followed.as_ref().map(|_| Arc::new(Mutex::new(need)));
        Reader { reads: self.clone(), client, max_wait: self.max_wait, need }
    }

    /// Creates a reader that uses only the primary.
    pub fn on_primary(&self, client: Client) -> Reader {
        Reader { reads: self.clone(), client, max_wait: self.max_wait, need: None }
    }
}

/// Reads for one answer to a client. Clones belong to the same answer.
#[derive(Clone)]
pub struct Reader {
    reads: Reads,
    client: Client,
    max_wait: Duration,
    /// What the replica must have replayed; increases with each read. `None` if there is no replica.
    need: Option<Arc<Mutex<Need>>>,
}

impl Reader {
    /// Creates a reader for another answer, with this requirement.
    #[must_use]
    pub fn needing(&self, need: Need) -> Self {
        Self { need: self.need.as_ref().map(|_| Arc::new(Mutex::new(need))), ..self.clone() }
    }

    /// Adds a requirement.
    pub fn raise(&self, need: Need) {
        if let Some(mut known) = self.known() {
            *known = need.max(*known);
        }
    }

    /// The current requirement.
    pub fn need(&self) -> Need {
        self.known().map(|need| *need).unwrap_or_default()
    }

    /// Whether a read may return older data than the primary has.
    pub fn may_be_behind(&self) -> bool {
        self.known().is_some_and(|need| *need != Need::Primary)
    }

    /// The requirement of a request that continues after this answer, so that it does not see older data.
    pub async fn need_behind(&self) -> Need {
        match self.need() {
            Need::Primary => self.need_now().await,
            need => need,
        }
    }

    /// The requirement of a read that must see everything that was committed before this call.
    pub async fn need_now(&self) -> Need {
        match &self.reads.followed {
            Some(followed) => followed.positions.need().await,
            None => Need::Nothing,
        }
    }

    fn known(&self) -> Option<MutexGuard<'_, Need>> {
        // No code that can panic runs under the lock.
        Some(self.need.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Allows longer waits from now on: for the rest of an answer that has begun.
    pub fn wait_midway(&mut self) {
        self.max_wait = MAX_WAIT_MIDWAY.max(self.max_wait);
    }

    /// Runs a statement that changes nothing; retries it once after connection loss.
    ///
    /// # Errors
    /// As [`Pool::read`], and [`StoreError::Unavailable`] if too many callers wait.
    pub async fn read(
        &self,
        operation: &DbOperation,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.collect(operation, Query::Prepared(sql, params)).await
    }

    /// As [`Reader::read`], for any query.
    ///
    /// # Errors
    /// As [`Reader::read`]; [`StoreError::TooLarge`] if the rows have too many bytes.
    pub async fn collect(&self, operation: &DbOperation, query: Query<'_>) -> Result<Vec<Row>, StoreError> {
        retried(|| async {
            let (mut rows, mut size) = (Vec::new(), ResultSize::default());
            let keep = &mut |row: Row| {
                size.add(row.raw_size_bytes())?;
                rows.push(row);
                Ok(())
            };
            self.for_each(operation, query, keep).await?;
            Ok(rows)
        })
        .await
    }

    /// Runs a statement that changes nothing and passes on each row as it arrives.
    ///
    /// # Errors
    /// As [`Pool::for_each`], and [`StoreError::Unavailable`] if too many callers wait, or if the replica failed after some
    /// rows: the caller must then read again ([`retried`]), which uses the primary.
    pub async fn for_each(
        &self,
        operation: &DbOperation,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError> {
        if let Some(followed) = self.reads.followed.as_ref().filter(|_| self.need.is_some()) {
            let mut handed = false;
            let counting = &mut |row| {
                handed = true;
                each(row)
            };
            let read = self.on_replica(&followed.replica, operation, query, counting).await;
            let result = match &read {
                Ok(_) => "replica",
                Err(Elsewhere(result)) => result,
            };
            metrics::counter!(REPLICA_READS, "result" => result).increment(1);
            match read {
                Ok(read) => return read,
                Err(_) => self.raise(Need::Primary),
            }
            // A caller that has received some rows must discard them first.
            if handed {
                return Err(StoreError::replica_failed());
            }
        }
        self.on_primary(operation, query, each).await
    }

    async fn on_primary(
        &self,
        operation: &DbOperation,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let permit = {
            let _waiting = Waiting::begin();
            self.reads.queue.acquire(&self.client, self.max_wait).await?
        };
        tracing::debug!(client = %self.client, waited_us = begun.elapsed().as_micros(), "a list read has its permit");
        let _paced = Paced::begin(&self.reads, permit);
        self.reads.pool.for_each(operation, query, each).await
    }

    /// Reads on the replica as soon as it has replayed what is required; returns the outcome, or why the primary must be used.
    async fn on_replica(
        &self,
        replica: &Replica,
        operation: &DbOperation,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<Result<(), StoreError>, Elsewhere> {
        let need = self.need();
        if need == Need::Primary {
            return Err(Elsewhere("primary"));
        }
        if let Some(unfit) = replica.state().unfit {
            return Err(Elsewhere(unfit.name()));
        }
        let waiting = Waiting::begin();
        let until = Instant::now() + replica.options.wait;
        let mut pause = REPLAY_CHECK_INTERVAL.0;
        loop {
            let permit = match replica.queue.acquire(&self.client, self.max_wait).await {
                Ok(permit) => permit,
                Err(refused) => return Ok(Err(refused)),
            };
            let Ok(session) = replica.pool.session().await else {
                replica.suspend(Unfit::Away);
                return Err(Elsewhere(Unfit::Away.name()));
            };
            match replica.judge(&session, need).await {
                Ok(()) => {
                    drop(waiting);
                    let read = self.on_session(replica, &session, operation, query, each).await;
                    drop(session);
                    drop(permit); // only after nothing runs for it any more
                    return read;
                }
                Err(Unfit::Behind) if Instant::now() < until => {}
                Err(unfit) => {
                    if unfit == Unfit::Away {
                        replica.suspend(unfit);
                    }
                    return Err(Elsewhere(unfit.name()));
                }
            }
            drop(session);
            drop(permit);
            // There is no notification of a standby's replay position.
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(REPLAY_CHECK_INTERVAL.1);
        }
    }

    async fn on_session(
        &self,
        replica: &Replica,
        session: &Session,
        operation: &DbOperation,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<Result<(), StoreError>, Elsewhere> {
        let (_counted, begun) = (InFlight::begin(&self.reads.in_flight), Instant::now());
        let mut refused = false;
        let each = &mut |row| each(row).inspect_err(|_| refused = true);
        let read = {
            let work = pin!(session.for_each(query, each));
            operation.run(work).await
        };
        let error = match read {
            Ok(()) => {
                // Queried after the rows: the position before them may have been lower than what they show.
                self.raise(replica.replayed(session).await.map_or(Need::Primary, Need::At));
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        // A read that took too long on the replica is not repeated on the primary.
        if refused || error.is_cancelled() && begun.elapsed() + DEADLINE_GRACE >= session.deadline() {
            return Ok(Err(error));
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "the replica failed a list");
        if error.is_connection_lost() || error.is_silence() {
            replica.suspend(Unfit::Away);
            return Err(Elsewhere(Unfit::Away.name()));
        }
        Err(Elsewhere("failed"))
    }
}

/// Why a read must use the primary; the value of the metric's label.
#[derive(Debug, Clone, Copy)]
struct Elsewhere(&'static str);

/// Counts a running list read until it is dropped.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn begin(gauge: &'a Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A permit that is released after a pause, even if the client disconnects before the statement ends.
struct Paced<'a> {
    permit: Option<Permit>,
    reads: &'a Reads,
    _counted: InFlight<'a>,
    begun: Instant,
    /// Number of checkouts of sessions for keys when the read began.
    checkouts: u64,
}

impl<'a> Paced<'a> {
    fn begin(reads: &'a Reads, permit: Permit) -> Self {
        let (_counted, begun) = (InFlight::begin(&reads.in_flight), Instant::now());
        Self { permit: Some(permit), reads, _counted, begun, checkouts: reads.keys.checkouts() }
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        let elapsed = self.begun.elapsed();
        if elapsed <= SHORT {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let checkouts = (self.reads.keys.checkouts() - self.checkouts) as f64;
        if let Some(permit) = self.permit.take_if(|_| checkouts / elapsed.as_secs_f64() > BUSY) {
            self.reads.paused.increment(1);
            permit.release_after((elapsed * PAUSE_FACTOR).min(PAUSE_MAX));
        }
    }
}
