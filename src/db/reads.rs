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
use super::position::Consistency;
use super::replica::{REPLICA_READS, ReadReplica, Replica, Unusable};
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
    read_replica: Option<ReadReplica>,
    in_flight: Gauge,
    paused: Counter,
}

impl Reads {
    /// Uses a dedicated pool beside the one for rows by key, and the replica if there is one; the wait for the first permit is
    /// limited to `max_wait`.
    pub fn new(pool: Pool, keys: Pool, max_wait: Duration, read_replica: Option<ReadReplica>) -> Self {
        Self {
            queue: FairQueue::for_sessions(pool.size()),
            pool,
            keys,
            max_wait,
            read_replica,
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
        let replica = self.read_replica.as_ref().map(|read_replica| (PoolKind::Replica, &read_replica.replica.pool));
        std::iter::once((PoolKind::Lists, &self.pool)).chain(replica)
    }

    /// Whether there is a replica, so that a reader's requirement matters.
    pub fn has_replica(&self) -> bool {
        self.read_replica.is_some()
    }

    /// Creates a reader for a client with this requirement.
    pub fn of(&self, client: Client, consistency: Consistency) -> Reader {
        let consistency = self.read_replica.as_ref().map(|_| Arc::new(Mutex::new(consistency)));
        Reader { reads: self.clone(), client, max_wait: self.max_wait, consistency }
    }

    /// Creates a reader that uses only the primary.
    pub fn on_primary(&self, client: Client) -> Reader {
        Reader { reads: self.clone(), client, max_wait: self.max_wait, consistency: None }
    }
}

/// Reads for one answer to a client. Clones belong to the same answer.
#[derive(Clone)]
pub struct Reader {
    reads: Reads,
    client: Client,
    max_wait: Duration,
    /// What the replica must have replayed; increases with each read. `None` if there is no replica.
    consistency: Option<Arc<Mutex<Consistency>>>,
}

impl Reader {
    /// Creates a reader for another answer, with this requirement.
    #[must_use]
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        Self { consistency: self.consistency.as_ref().map(|_| Arc::new(Mutex::new(consistency))), ..self.clone() }
    }

    /// Adds a requirement.
    pub fn raise(&self, consistency: Consistency) {
        if let Some(mut known) = self.known() {
            *known = consistency.max(*known);
        }
    }

    /// The current requirement.
    pub fn consistency(&self) -> Consistency {
        self.known().map(|consistency| *consistency).unwrap_or_default()
    }

    /// Whether a read may return older data than the primary has.
    pub fn may_be_behind(&self) -> bool {
        self.known().is_some_and(|consistency| *consistency != Consistency::Primary)
    }

    /// The requirement of a request that continues after this answer, so that it does not see older data.
    pub async fn consistency_after(&self) -> Consistency {
        match self.consistency() {
            Consistency::Primary => self.current_consistency().await,
            consistency => consistency,
        }
    }

    /// The requirement of a read that must see everything that was committed before this call.
    pub async fn current_consistency(&self) -> Consistency {
        match &self.reads.read_replica {
            Some(read_replica) => read_replica.positions.consistency().await,
            None => Consistency::Eventual,
        }
    }

    fn known(&self) -> Option<MutexGuard<'_, Consistency>> {
        // No code that can panic runs under the lock.
        Some(self.consistency.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// As [`Reader::read`].
    pub async fn collect(&self, operation: &DbOperation, query: Query<'_>) -> Result<Vec<Row>, StoreError> {
        retried(|| async {
            let mut rows = Vec::new();
            let keep = &mut |row| {
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
        if let Some(read_replica) = self.reads.read_replica.as_ref().filter(|_| self.consistency.is_some()) {
            let mut handed = false;
            let counting = &mut |row| {
                handed = true;
                each(row)
            };
            let read = self.on_replica(&read_replica.replica, operation, query, counting).await;
            let result = match &read {
                Ok(_) => "replica",
                Err(Elsewhere(result)) => result,
            };
            metrics::counter!(REPLICA_READS, "result" => result).increment(1);
            match read {
                Ok(read) => return read,
                Err(_) => self.raise(Consistency::Primary),
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
        let consistency = self.consistency();
        if consistency == Consistency::Primary {
            return Err(Elsewhere("primary"));
        }
        if let Some(unusable) = replica.state().unusable {
            return Err(Elsewhere(unusable.name()));
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
                replica.suspend(Unusable::Away);
                return Err(Elsewhere(Unusable::Away.name()));
            };
            match replica.check(&session, consistency).await {
                Ok(()) => {
                    drop(waiting);
                    let read = self.on_session(replica, &session, operation, query, each).await;
                    drop(session);
                    drop(permit); // only after nothing runs for it any more
                    return read;
                }
                Err(Unusable::Behind) if Instant::now() < until => {}
                Err(unusable) => {
                    if unusable == Unusable::Away {
                        replica.suspend(unusable);
                    }
                    return Err(Elsewhere(unusable.name()));
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
                self.raise(replica.replayed(session).await.map_or(Consistency::Primary, Consistency::AtLeast));
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        if matches!(error, StoreError::Enough) {
            // The rows so far are part of the answer. The session can report the position when their statement has ended.
            session.recover().await;
            self.raise(replica.replayed(session).await.map_or(Consistency::Primary, Consistency::AtLeast));
        }
        // A read that took too long on the replica is not repeated on the primary.
        if refused || error.is_cancelled() && begun.elapsed() + DEADLINE_GRACE >= session.deadline() {
            return Ok(Err(error));
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "the replica failed a list");
        if error.is_connection_lost() || error.is_silence() {
            replica.suspend(Unusable::Away);
            return Err(Elsewhere(Unusable::Away.name()));
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
