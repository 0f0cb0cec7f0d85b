//! Answers what arrives together with one piece of work: the group commit of requests.
//!
//! While a batch is at work, arriving items queue; the next batch takes them all. There is no timer, so a lone item
//! starts at once and waits for nobody. There is no cache either: an item is only ever answered by work that began after
//! it arrived. This module knows nothing of SQL or HTTP.
//!
//! Batches in flight adapt to the load: one while it keeps up, because fewer batches are larger ones and larger ones are
//! cheaper per item; a few when enough are waiting to be worth it, so that database and server work at the same time;
//! further ones, up to a bound, when a full batch is waiting or the one at work has stalled. Nobody waits in the
//! queue beyond its deadline.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Histogram};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::StoreError;
use super::wait_time::Waiting;
use crate::trace::current::Current;

/// Name of the histogram of items per batch.
pub const BATCH_SIZE: &str = "db_batch_size";
/// Name of the histogram of the time an item waits for its batch to begin.
pub const BATCH_WAIT: &str = "db_batch_wait_seconds";
/// Most that may wait for one kind of work: what a burst on all of nginx's connections can bring.
pub const QUEUE: usize = 8192;
/// Name of the counter of items that were refused.
pub const BATCH_REFUSED: &str = "db_batch_refused_total";

/// What the metrics of a batcher are labelled with.
#[derive(Debug, Clone, Copy)]
pub struct BatchName {
    /// Whose rows they are.
    pub resource: &'static str,
    /// What is done with them.
    pub batch: &'static str,
}

/// Bounds of a batcher.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Most items of one batch.
    pub size: usize,
    /// So many batches are begun beside each other while each finds `worth` waiting items; 1 for one after the other.
    pub eager: usize,
    /// So many waiting items are worth such a batch.
    pub worth: usize,
    /// Most batches at work at once; each uses a connection.
    pub in_flight: usize,
    /// Most items waiting; one more is refused.
    pub queue: usize,
    /// Longest wait in the queue; then the item is refused.
    pub wait: Duration,
    /// Whether the work changes data: nobody knows then what a batch that panicked has done.
    pub changes: bool,
}

/// A batch that takes this long waits for something, such as a lock, and must not hold up the rest: a healthy one takes
/// about a millisecond.
const STALLED: Duration = Duration::from_millis(20);

/// A batch at work looks around this often at least: soon enough to cancel what nobody waits for any more.
const LOOK: Duration = Duration::from_millis(100);

/// What a batch does: one outcome per item, in the order of the items.
pub type Work<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O, StoreError>>> + Send + Sync;

/// Groups items that arrive together. Cheap to clone; clones share one queue.
pub struct Batcher<I, O> {
    shared: Arc<Shared<I, O>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<I, O> {
    name: BatchName,
    limits: BatchLimits,
    work: Box<Work<I, O>>,
    state: Mutex<State<I, O>>,
    metrics: Metrics,
}

struct State<I, O> {
    waiting: Vec<Waiter<I, O>>,
    in_flight: usize,
    /// When the newest batch began.
    last_begin: Option<Instant>,
}

struct Waiter<I, O> {
    item: I,
    since: Instant,
    /// What it is a part of, if that is recorded.
    trace: Option<Current>,
    answer: oneshot::Sender<Result<O, StoreError>>,
}

struct Metrics {
    size: Histogram,
    wait: Histogram,
    refused: Counter,
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// A batcher whose metrics carry `name`.
    pub fn new(name: BatchName, limits: BatchLimits, work: Box<Work<I, O>>) -> Self {
        let metrics = Metrics {
            size: metrics::histogram!(BATCH_SIZE, "resource" => name.resource, "batch" => name.batch),
            wait: metrics::histogram!(BATCH_WAIT, "resource" => name.resource, "batch" => name.batch),
            refused: metrics::counter!(BATCH_REFUSED, "resource" => name.resource, "batch" => name.batch),
        };
        let state = Mutex::new(State { waiting: Vec::new(), in_flight: 0, last_begin: None });
        Self { shared: Arc::new(Shared { name, limits, work, state, metrics }) }
    }

    /// Hands in an item and waits for its outcome. Dropping the future takes the item out of the queue.
    ///
    /// # Errors
    /// The work's; [`StoreError::Unavailable`] when the queue is full or nobody came to the item in time; that or
    /// [`StoreError::OutcomeUnknown`] when the work panicked.
    pub async fn submit(&self, item: I) -> Result<O, StoreError> {
        let _waiting = Waiting::begin();
        let (answer, outcome) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.waiting.len() >= self.shared.limits.queue {
                self.shared.metrics.refused.increment(1);
                return Err(StoreError::unavailable("too many requests are waiting"));
            }
            let since = Instant::now();
            state.waiting.push(Waiter { item, since, trace: Current::get(), answer });
            let limits = &self.shared.limits;
            let another = match state.in_flight {
                0 => true,
                many if many < limits.eager.min(limits.in_flight) && state.waiting.len() >= limits.worth => true,
                many if many < limits.in_flight => {
                    state.waiting.len() >= limits.size || state.last_begin.is_some_and(|begun| since - begun > STALLED)
                }
                _ => false,
            };
            if another {
                state.in_flight += 1;
                // A task of its own: a client that goes away must not take the batch of others with it.
                begin(self.shared.clone());
            }
        }
        outcome.await.unwrap_or_else(|_| Err(self.shared.limits.given_up()))
    }
}

impl<I, O> Batcher<I, O> {
    /// Whether a batch is at work, or began a moment ago.
    pub fn is_busy(&self, moment: Duration) -> bool {
        let state = self.shared.lock();
        state.in_flight > 0 || state.last_begin.is_some_and(|begun| begun.elapsed() < moment)
    }
}

impl<I, O> Shared<I, O> {
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch; `None` ends the drain that asks.
    fn take(&self) -> Option<Vec<Waiter<I, O>>> {
        let mut state = self.lock();
        // A client that has gone needs no answer.
        state.waiting.retain(|waiter| !waiter.answer.is_closed());
        if state.waiting.is_empty() {
            state.in_flight -= 1;
            return None;
        }
        state.last_begin = Some(Instant::now());
        if state.waiting.len() <= self.limits.size {
            let next = Vec::with_capacity(state.waiting.len());
            return Some(std::mem::replace(&mut state.waiting, next));
        }
        let rest = state.waiting.split_off(self.limits.size);
        Some(std::mem::replace(&mut state.waiting, rest))
    }

    /// Whether items wait for a batch that has stalled, and may have another, which is counted then. Whoever comes next need
    /// not come for a long time.
    fn is_held_up(&self) -> bool {
        let mut state = self.lock();
        let stalled = state.last_begin.is_some_and(|begun| begun.elapsed() > STALLED);
        let held_up = stalled && !state.waiting.is_empty() && state.in_flight < self.limits.in_flight;
        state.in_flight += usize::from(held_up);
        held_up
    }

    /// Refuses the items that have waited too long, counting the time until the next look.
    fn expire(&self) {
        let mut state = self.lock();
        let patience = self.limits.wait.saturating_sub(self.limits.look());
        let fresh = state.waiting.iter().position(|waiter| waiter.since.elapsed() < patience);
        let expired = fresh.unwrap_or(state.waiting.len());
        for waiter in state.waiting.drain(..expired) {
            self.metrics.refused.increment(1);
            let late = StoreError::unavailable("waited too long for the requests before it");
            let _ = waiter.answer.send(Err(late)); // the client may have gone
        }
    }
}

impl BatchLimits {
    /// What the items of a batch that panicked are told.
    fn given_up(&self) -> StoreError {
        let reason = "the batch was given up";
        if self.changes { StoreError::outcome_unknown(reason) } else { StoreError::unavailable(reason) }
    }

    /// How often a batch at work looks for items that have waited too long, and for clients that are still there.
    fn look(&self) -> Duration {
        LOOK.min(self.wait / 4)
    }
}

/// Begins another batch, which has been counted already.
fn begin<I: Send + 'static, O: Send + 'static>(shared: Arc<Shared<I, O>>) {
    tokio::spawn(drain(shared));
}

/// Works until nothing is waiting.
async fn drain<I: Send + 'static, O: Send + 'static>(shared: Arc<Shared<I, O>>) {
    while let Some(batch) = shared.take() {
        let mut items = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        let mut traces = Vec::new();
        let begun = Instant::now();
        for Waiter { item, since, trace, answer } in batch {
            shared.metrics.wait.record((begun - since).as_secs_f64());
            items.push(item);
            answers.push(answer);
            traces.extend(trace);
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        shared.metrics.size.record(items.len() as f64);
        let expected = items.len();
        // A panic in the work must not leave the queue without anybody to drain it.
        let work = AssertUnwindSafe(async { Current::joined_scope(&traces, (shared.work)(items)).await });
        let mut work = std::pin::pin!(work.catch_unwind());
        let finished = loop {
            match tokio::time::timeout(shared.limits.look(), &mut work).await {
                Ok(finished) => break finished,
                // Nobody is left to work for; dropping the work cancels its statement.
                Err(_) if answers.iter().all(oneshot::Sender::is_closed) => break Ok(Vec::new()),
                Err(_) => {
                    shared.expire();
                    if shared.is_held_up() {
                        begin(shared.clone());
                    }
                }
            }
        };
        let BatchName { resource, batch } = shared.name;
        tracing::debug!(resource, batch, items = expected, duration_us = begun.elapsed().as_micros(), "a batch");
        match finished {
            Ok(outcomes) => {
                debug_assert!(outcomes.is_empty() || outcomes.len() == expected, "one outcome per item");
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(outcome); // the client may have gone meanwhile
                }
            }
            Err(_) => drop(answers), // each waiter is told that its batch was given up
        }
    }
}

#[cfg(test)]
mod tests;
