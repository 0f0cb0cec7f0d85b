//! Runs items that arrive together as one batch: group commit for requests.
//!
//! While a batch is running, arriving items queue; the next batch takes them all. There is no timer, so a single item starts at
//! once. There is no cache: an item's result comes only from work that began after the item arrived. This module does not
//! depend on SQL or HTTP.
//!
//! The number of batches in flight adapts to the load: one while it keeps up, because larger batches cost less per item; a few
//! when enough items are waiting, so that the database and the server work at the same time; more, up to a limit, when a full
//! batch is waiting or the running one has stalled. No item waits in the queue beyond its deadline.

use std::collections::VecDeque;
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
/// Maximum number of items waiting for one kind of work: as many as nginx has connections. A client that is refused retries,
/// and a refusal costs the server half as much as an answer.
pub const QUEUE: usize = 16_384;
/// Name of the counter of refused items.
pub const BATCH_REFUSED: &str = "db_batch_refused_total";

/// Labels of a batcher's metrics.
#[derive(Debug, Clone, Copy)]
pub struct BatchName {
    /// The resource that the rows belong to.
    pub resource: &'static str,
    /// The operation.
    pub batch: &'static str,
}

/// Limits of a batcher.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Maximum number of items in a batch.
    pub size: usize,
    /// Number of batches that may run concurrently while each finds `worth` waiting items; 1 for strictly sequential batches.
    pub eager: usize,
    /// Number of waiting items that justify such a batch.
    pub worth: usize,
    /// Maximum number of running batches; each uses a connection.
    pub in_flight: usize,
    /// Maximum number of waiting items; further ones are refused.
    pub queue: usize,
    /// Longest wait in the queue; then the item is refused.
    pub wait: Duration,
    /// Whether the work changes data: the outcome of a batch that panicked is then unknown.
    pub changes: bool,
}

/// A batch that runs this long is waiting for something, such as a lock, and must not delay the others: a normal one takes
/// about a millisecond.
const STALLED: Duration = Duration::from_millis(20);

/// Maximum interval between checks for expired and cancelled items while a batch is running.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The work of a batch: one result per item, in the order of the items.
pub type Work<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O, StoreError>>> + Send + Sync;

/// Batches items that arrive together. Cheap to clone; clones share one queue.
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
    waiting: VecDeque<Waiter<I, O>>,
    in_flight: usize,
    /// When the newest batch started.
    last_begin: Option<Instant>,
}

struct Waiter<I, O> {
    item: I,
    since: Instant,
    /// The trace that the item belongs to, if it is sampled.
    trace: Option<Current>,
    answer: oneshot::Sender<Result<O, StoreError>>,
}

struct Metrics {
    size: Histogram,
    wait: Histogram,
    refused: Counter,
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Creates a batcher whose metrics have these labels.
    pub fn new(name: BatchName, limits: BatchLimits, work: Box<Work<I, O>>) -> Self {
        let metrics = Metrics {
            size: metrics::histogram!(BATCH_SIZE, "resource" => name.resource, "batch" => name.batch),
            wait: metrics::histogram!(BATCH_WAIT, "resource" => name.resource, "batch" => name.batch),
            refused: metrics::counter!(BATCH_REFUSED, "resource" => name.resource, "batch" => name.batch),
        };
        let state = Mutex::new(State { waiting: VecDeque::new(), in_flight: 0, last_begin: None });
        Self { shared: Arc::new(Shared { name, limits, work, state, metrics }) }
    }

    /// Submits an item and waits for its result. If the future is dropped, the item is left out of the next batches.
    ///
    /// # Errors
    /// The work's; [`StoreError::Unavailable`] if the queue is full or the item has waited too long; that or
    /// [`StoreError::OutcomeUnknown`] if the work panicked.
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
            state.waiting.push_back(Waiter { item, since, trace: Current::get(), answer });
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
                // A separate task: if this client disconnects, the batch must still complete for the others.
                begin(self.shared.clone());
            }
        }
        outcome.await.unwrap_or_else(|_| Err(self.shared.limits.panicked()))
    }
}

impl<I, O> Batcher<I, O> {
    /// Whether a batch is running, or started within the last `moment`.
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

    /// The next batch; `None` if nothing is waiting, which ends the calling [`drain`].
    fn take(&self) -> Option<Vec<Waiter<I, O>>> {
        let mut state = self.lock();
        let mut batch = Vec::with_capacity(state.waiting.len().min(self.limits.size));
        while batch.len() < self.limits.size {
            let Some(next) = state.waiting.pop_front() else { break };
            // A client that has disconnected needs no response.
            if !next.answer.is_closed() {
                batch.push(next);
            }
        }
        if batch.is_empty() {
            state.in_flight -= 1;
            return None;
        }
        state.last_begin = Some(Instant::now());
        Some(batch)
    }

    /// Whether items are waiting behind a stalled batch and another may start, which is then counted as running. Without this
    /// check they would wait until the next item arrives, which may take long.
    fn is_held_up(&self) -> bool {
        let mut state = self.lock();
        let stalled = state.last_begin.is_some_and(|begun| begun.elapsed() > STALLED);
        let held_up = stalled && !state.waiting.is_empty() && state.in_flight < self.limits.in_flight;
        state.in_flight += usize::from(held_up);
        held_up
    }

    /// Refuses the items that would exceed their wait limit before the next check.
    fn expire(&self) {
        let mut state = self.lock();
        let limit = self.limits.wait.saturating_sub(self.limits.check_interval());
        let fresh = state.waiting.iter().position(|waiter| waiter.since.elapsed() < limit);
        let expired = fresh.unwrap_or(state.waiting.len());
        for waiter in state.waiting.drain(..expired) {
            self.metrics.refused.increment(1);
            let late = StoreError::unavailable("waited too long for the requests before it");
            let _ = waiter.answer.send(Err(late)); // the client may have disconnected
        }
    }
}

impl BatchLimits {
    /// The error of each item of a batch that panicked.
    fn panicked(&self) -> StoreError {
        let reason = "the batch panicked";
        if self.changes { StoreError::outcome_unknown(reason) } else { StoreError::unavailable(reason) }
    }

    /// How often a running batch checks for items that have waited too long, and whether any client is still connected.
    fn check_interval(&self) -> Duration {
        CHECK_INTERVAL.min(self.wait / 4)
    }
}

/// Starts another batch, which is already counted.
fn begin<I: Send + 'static, O: Send + 'static>(shared: Arc<Shared<I, O>>) {
    tokio::spawn(drain(shared));
}

/// Runs batches until nothing is waiting.
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
        // A panic in the work must not end this task while items are queued.
        let work = AssertUnwindSafe(async { Current::joined_scope(&traces, (shared.work)(items)).await });
        let mut work = std::pin::pin!(work.catch_unwind());
        let finished = loop {
            match tokio::time::timeout(shared.limits.check_interval(), &mut work).await {
                Ok(finished) => break finished,
                // All clients have disconnected; dropping the work cancels its statement.
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
        tracing::debug!(resource, batch, items = expected, duration_us = begun.elapsed().as_micros(), "batch finished");
        match finished {
            Ok(outcomes) => {
                debug_assert!(outcomes.is_empty() || outcomes.len() == expected, "one outcome per item");
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(outcome); // the client may have disconnected
                }
            }
            Err(_) => drop(answers), // `submit` reports the panic to each waiter
        }
    }
}

#[cfg(test)]
mod tests;
