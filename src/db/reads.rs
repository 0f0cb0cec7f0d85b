//! Reads many rows: on sessions of their own, in turn, and giving way to rows by key.
//!
//! A statement whose cost grows with the table keeps one of PostgreSQL's processors busy for as long as it runs. While
//! rows are asked for by key as well, a turn that was long is followed by a pause, so that such statements take a part
//! of the processors and not all.

use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use tokio_postgres::Row;

use super::error::StoreError;
use super::operation::DbOperation;
use super::pool::{Pool, retried};
use super::session::{Params, Query};
use super::turns::{Client, Turn, Turns};
use super::wait_time::Waiting;

/// Name of the gauge of turns at work.
pub const LISTS_IN_FLIGHT: &str = "lists_in_flight";
/// Name of the counter of turns that were followed by a pause.
pub const LISTS_PAUSED: &str = "lists_paused_total";

/// Most that wait for a turn.
const QUEUE: usize = 1024;
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

/// Everything that reads many rows.
#[derive(Clone)]
pub struct Reads {
    pool: Pool,
    keys: Pool,
    turns: Turns,
    patience: Duration,
    in_flight: Gauge,
    paused: Counter,
}

impl Reads {
    /// On a pool of its own, beside the one for rows by key; nobody waits longer than `patience` for the first turn.
    pub fn new(pool: Pool, keys: Pool, patience: Duration) -> Self {
        let size = usize::try_from(pool.size()).expect("a pool is small");
        Self {
            pool,
            keys,
            turns: Turns::new(size, QUEUE),
            patience,
            in_flight: metrics::gauge!(LISTS_IN_FLIGHT),
            paused: metrics::counter!(LISTS_PAUSED),
        }
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Reads for a client.
    pub fn of(&self, client: Client) -> Reader {
        Reader { reads: self.clone(), client, patience: self.patience }
    }
}

/// Reads for one client.
#[derive(Clone)]
pub struct Reader {
    reads: Reads,
    client: Client,
    patience: Duration,
}

impl Reader {
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
    /// As [`Pool::for_each`], and [`StoreError::Unavailable`] when too many wait.
    pub async fn for_each(
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
}

/// A turn with its pause, also for a client that leaves before the end of its statement.
struct Paced<'a> {
    turn: Option<Turn>,
    reads: &'a Reads,
    begun: Instant,
    /// How often a session for keys had been taken when it began.
    checkouts: u64,
}

impl<'a> Paced<'a> {
    fn begin(reads: &'a Reads, turn: Turn) -> Self {
        reads.in_flight.increment(1);
        Self { turn: Some(turn), reads, begun: Instant::now(), checkouts: reads.keys.checkouts() }
    }
}

impl Drop for Paced<'_> {
    fn drop(&mut self) {
        self.reads.in_flight.decrement(1);
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
