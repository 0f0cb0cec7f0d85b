//! Reads many rows: on sessions of their own, in turn, and giving way to rows by key.
//!
//! A statement whose cost grows with the table keeps one of PostgreSQL's processors busy for as long as it runs. While
//! rows are asked for by key as well, a turn that was long is followed by a pause, so that such statements take a part
//! of the processors and not all.
//!
//! Where there is a replica, it is read there, as long as it has what the reader needs; otherwise, and when it fails, on the
//! primary, and so is the rest of that answer. What is read for one answer never is older than what was read for it before.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use tokio_postgres::Row;

use super::error::StoreError;
use super::operation::DbOperation;
use super::pool::{Pool, PoolKind, retried};
use super::position::Need;
use super::replica::{Followed, REPLICA_READS, Replica, Unfit};
use super::session::{DEADLINE_GRACE, Params, Query, Session};
use super::turns::{Client, Turn, Turns};
use super::wait_time::Waiting;

/// Name of the gauge of turns at work.
pub const LISTS_IN_FLIGHT: &str = "lists_in_flight";
/// Name of the counter of turns that were followed by a pause.
pub const LISTS_PAUSED: &str = "lists_paused_total";

/// What has begun to be answered waits so long for its next turn, because giving up would cut the answer short.
const PATIENCE_MIDWAY: Duration = Duration::from_secs(30);

/// A turn shorter than this is followed by no pause: pages, and chunks of lists in the order of an index.
const SHORT: Duration = Duration::from_millis(20);
/// A pause is so many times as long as the turn before it, and at most [`PAUSE_MAX`].
const PAUSE_FACTOR: u32 = 3;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Rows by key are asked for when their sessions were taken so many times a second.
const BUSY: f64 = 50.0;

/// The first pause of whoever waits for the replica, and the longest.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// Everything that reads many rows.
#[derive(Clone)]
pub struct Reads {
    pool: Pool,
    keys: Pool,
    turns: Turns,
    patience: Duration,
    followed: Option<Followed>,
    in_flight: Gauge,
    paused: Counter,
}

impl Reads {
    /// On a pool of its own, beside the one for rows by key, and on the replica if there is one; nobody waits longer than `patience`
    /// for the first turn.
    pub fn new(pool: Pool, keys: Pool, patience: Duration, followed: Option<Followed>) -> Self {
        Self {
            turns: Turns::at_sessions(pool.size()),
            pool,
            keys,
            patience,
            followed,
            in_flight: metrics::gauge!(LISTS_IN_FLIGHT),
            paused: metrics::counter!(LISTS_PAUSED),
        }
    }

    /// The pool on the primary.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its pools.
    pub fn pools(&self) -> impl Iterator<Item = (PoolKind, &Pool)> {
        let replica = self.followed.as_ref().map(|followed| (PoolKind::Replica, &followed.replica.pool));
        std::iter::once((PoolKind::Lists, &self.pool)).chain(replica)
    }

    /// Whether there is a replica, so that it matters what a reader needs.
    pub fn has_replica(&self) -> bool {
        self.followed.is_some()
    }

    /// Reads for a client who needs this.
    pub fn of(&self, client: Client, need: Need) -> Reader {
        let need = self.followed.as_ref().map(|_| Arc::new(Mutex::new(need)));
        Reader { reads: self.clone(), client, patience: self.patience, need }
    }

    /// The same on the primary alone.
    pub fn on_primary(&self, client: Client) -> Reader {
        Reader { reads: self.clone(), client, patience: self.patience, need: None }
    }
}

/// Reads for one answer to a client. Clones read for the same one.
#[derive(Clone)]
pub struct Reader {
    reads: Reads,
    client: Client,
    patience: Duration,
    /// What has to be there; it grows with what was read. `None` where there is no replica.
    need: Option<Arc<Mutex<Need>>>,
}

impl Reader {
    /// Reads for another answer, which needs this.
    #[must_use]
    pub fn needing(&self, need: Need) -> Self {
        Self { need: self.need.as_ref().map(|_| Arc::new(Mutex::new(need))), ..self.clone() }
    }

    /// From now on needs this too.
    pub fn raise(&self, need: Need) {
        if let Some(mut known) = self.known() {
            *known = need.max(*known);
        }
    }

    /// What is needed by now.
    pub fn need(&self) -> Need {
        self.known().map(|need| *need).unwrap_or_default()
    }

    /// Whether what it reads may be older than what the primary holds.
    pub fn may_be_behind(&self) -> bool {
        self.known().is_some_and(|need| *need != Need::Primary)
    }

    /// What whoever goes on behind this answer needs, so that they see nothing older.
    pub async fn need_behind(&self) -> Need {
        match self.need() {
            Need::Primary => self.need_now().await,
            need => need,
        }
    }

    /// What has everything that was committed before this call.
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

    /// From now on waits longer: for the rest of an answer that has begun.
    pub fn wait_midway(&mut self) {
        self.patience = PATIENCE_MIDWAY.max(self.patience);
    }

    /// Runs a statement that changes nothing; tries once more when the connection is lost under it.
    ///
    /// # Errors
    /// As [`Pool::read`], and [`StoreError::Unavailable`] when too many wait.
    pub async fn read(
        &self,
        operation: &DbOperation,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.collect(operation, Query::Prepared(sql, params)).await
    }

    /// The same for any query.
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

    /// Runs a statement that changes nothing and hands over each row as it arrives.
    ///
    /// # Errors
    /// As [`Pool::for_each`], and [`StoreError::Unavailable`] when too many wait, or when the replica failed after some rows: it is
    /// to be read once more then ([`retried`]), and is on the primary.
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
            // Whoever was handed some rows has to forget them first.
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
        let asked = Instant::now();
        let turn = {
            let _waiting = Waiting::begin();
            self.reads.turns.take(&self.client, self.patience).await?
        };
        tracing::debug!(client = %self.client, waited_us = asked.elapsed().as_micros(), "a turn at lists");
        let _paced = Paced::begin(&self.reads, turn);
        self.reads.pool.for_each(operation, query, each).await
    }

    /// Reads on the replica, as soon as it has what is needed; what was read there, or failed there for good.
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
        let mut pause = LOOK_AGAIN.0;
        loop {
            let turn = match replica.turns.take(&self.client, self.patience).await {
                Ok(turn) => turn,
                Err(refused) => return Ok(Err(refused)),
            };
            let Ok(session) = replica.pool.session().await else {
                replica.rest(Unfit::Away);
                return Err(Elsewhere(Unfit::Away.name()));
            };
            match replica.judge(&session, need).await {
                Ok(()) => {
                    drop(waiting);
                    let read = self.on_session(replica, &session, operation, query, each).await;
                    drop(session);
                    drop(turn); // not before nothing runs for it any more
                    return read;
                }
                Err(Unfit::Behind) if Instant::now() < until => {}
                Err(unfit) => {
                    if unfit == Unfit::Away {
                        replica.rest(unfit);
                    }
                    return Err(Elsewhere(unfit.name()));
                }
            }
            drop(session);
            drop(turn);
            // Nothing announces how far a standby has come.
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
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
                // Asked behind the rows: before them it may have been less than they show.
                self.raise(replica.replayed(session).await.map_or(Need::Primary, Need::At));
                return Ok(Ok(()));
            }
            Err(error) => error,
        };
        // What took too long there is not begun anew on the primary.
        if refused || error.is_cancelled() && begun.elapsed() + DEADLINE_GRACE >= session.deadline() {
            return Ok(Err(error));
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "the replica failed a list");
        if error.is_connection_lost() || error.is_silence() {
            replica.rest(Unfit::Away);
            return Err(Elsewhere(Unfit::Away.name()));
        }
        Err(Elsewhere("failed"))
    }
}

/// Why something is to be read on the primary, as metrics tell it.
#[derive(Debug, Clone, Copy)]
struct Elsewhere(&'static str);

/// One more list under way, until this is dropped.
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

/// A turn with its pause, also for a client that leaves before the end of its statement.
struct Paced<'a> {
    turn: Option<Turn>,
    reads: &'a Reads,
    _counted: InFlight<'a>,
    begun: Instant,
    /// How often a session for keys had been taken when it began.
    checkouts: u64,
}

impl<'a> Paced<'a> {
    fn begin(reads: &'a Reads, turn: Turn) -> Self {
        let (_counted, begun) = (InFlight::begin(&reads.in_flight), Instant::now());
        Self { turn: Some(turn), reads, _counted, begun, checkouts: reads.keys.checkouts() }
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if took <= SHORT {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let checkouts = (self.reads.keys.checkouts() - self.checkouts) as f64;
        if let Some(turn) = self.turn.take_if(|_| checkouts / took.as_secs_f64() > BUSY) {
            self.reads.paused.increment(1);
            turn.end_after((took * PAUSE_FACTOR).min(PAUSE_MAX));
        }
    }
}
