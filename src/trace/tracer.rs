//! Takes spans in, and keeps a bounded number of them for whoever delivers them.
//!
//! Nobody waits for the delivery: when it is behind, spans are dropped and counted. Invariant: each span that was taken in is
//! counted once, as exported or as dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;

use super::context::{SpanContext, TraceId};
use super::sampler::Sampler;
use super::span::{Attribute, Span};

/// Name of the counter of spans that were delivered.
pub const TRACES_EXPORTED: &str = "otel_traces_exported_total";
/// Name of the counter of spans that were not.
pub const TRACES_DROPPED: &str = "otel_traces_dropped_total";

/// How many spans wait, and for how long (OpenTelemetry specification, "Batching processor").
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Most that wait; further ones are dropped.
    pub queue: usize,
    /// Most that are delivered together; so many do not wait any longer.
    pub batch: usize,
    /// Longest that fewer wait.
    pub delay: Duration,
}

/// How a tracer decides, and what it knows without being told.
#[derive(Debug, Clone)]
pub struct TracerOptions {
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Whether the trace of a request is continued.
    pub continues: bool,
    /// What every span of the database says.
    pub database: Vec<Attribute>,
    /// How many spans wait.
    pub limits: QueueLimits,
}

/// Takes spans in.
pub struct Tracer {
    options: TracerOptions,
    waiting: Mutex<Waiting>,
    /// There is a batch, or nothing more will come.
    wake: Condvar,
    /// Everything was delivered, or was given up.
    closed: Condvar,
    exported: Counter,
    dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    spans: Vec<Span>,
    /// Until when what is left must be delivered.
    closing: Option<Instant>,
    closed: bool,
}

/// What is delivered next.
pub struct Batch {
    /// The spans; none at the end.
    pub spans: Vec<Span>,
    /// Until when it must be delivered, because the process ends.
    pub deadline: Option<Instant>,
}

impl Tracer {
    /// A tracer; somebody must deliver what it takes in.
    pub fn new(options: TracerOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            closed: Condvar::new(),
            exported: metrics::counter!(TRACES_EXPORTED),
            dropped: metrics::counter!(TRACES_DROPPED),
        })
    }

    /// Whether the trace of a request is continued.
    pub fn continues(&self) -> bool {
        self.options.continues
    }

    /// Whether a request of this trace is recorded; the parent is what its sender says.
    pub fn samples(&self, parent: Option<&SpanContext>, trace: TraceId) -> bool {
        self.options.sampler.samples(parent.map(|parent| parent.is_sampled), trace)
    }

    /// What every span of the database says.
    pub fn database(&self) -> &[Attribute] {
        &self.options.database
    }

    /// Takes a span in, or drops it when too many wait.
    pub fn end(&self, span: Span) {
        let mut waiting = self.lock();
        if waiting.spans.len() >= self.options.limits.queue || waiting.closed {
            drop(waiting);
            return self.dropped.increment(1);
        }
        waiting.spans.push(span);
        if waiting.spans.len() == self.options.limits.batch {
            self.wake.notify_one();
        }
    }

    /// Waits for the next batch.
    pub fn next(&self) -> Batch {
        let limits = self.options.limits;
        let is_early = |waiting: &mut Waiting| waiting.spans.len() < limits.batch && waiting.closing.is_none();
        let waited = self.wake.wait_timeout_while(self.lock(), limits.delay, is_early);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        let count = limits.batch.min(waiting.spans.len());
        let rest = waiting.spans.split_off(count);
        Batch { spans: std::mem::replace(&mut waiting.spans, rest), deadline: waiting.closing }
    }

    /// Counts what became of spans.
    pub fn count(&self, exported: usize, dropped: usize) {
        self.exported.increment(exported as u64);
        self.dropped.increment(dropped as u64);
    }

    /// Whether the process ends, and until when something may be delivered.
    pub fn closing(&self) -> Option<Instant> {
        self.lock().closing
    }

    /// Waits, unless the process ends.
    pub fn pause(&self, pause: Duration) {
        let is_open = |waiting: &mut Waiting| waiting.closing.is_none();
        drop(self.wake.wait_timeout_while(self.lock(), pause, is_open));
    }

    /// At the end: has what waits delivered, as far as that is done in time.
    pub fn close(&self, within: Duration) {
        let mut waiting = self.lock();
        waiting.closing = Some(Instant::now() + within);
        self.wake.notify_one();
        let waited = self.closed.wait_timeout_while(waiting, within, |waiting| !waiting.closed);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.spans).len();
        self.count(0, left);
    }

    /// Says that nothing will be delivered any more.
    pub fn closed(&self) {
        self.lock().closed = true;
        self.closed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
