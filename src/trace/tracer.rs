//! Queues a bounded number of finished spans for the exporter.
//!
//! Recording never waits for delivery: if the exporter is too slow, spans are dropped and counted. Invariant: each finished
//! span is counted once, as exported or as dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;

use super::context::{SpanContext, TraceId};
use super::sampler::Sampler;
use super::span::{Attribute, Span};

/// Name of the counter of delivered spans.
pub const TRACES_EXPORTED: &str = "otel_traces_exported_total";
/// Name of the counter of dropped spans.
pub const TRACES_DROPPED: &str = "otel_traces_dropped_total";

/// Maximum number of prepared statements per second that are sent as text, so that their trace context is in the statement
/// itself: each costs PostgreSQL another plan, about 0.1 ms.
const PLANS_PER_SECOND: u32 = 20;

/// Limits of the queue (OpenTelemetry specification, "Batching processor").
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Maximum number of queued spans; further ones are dropped.
    pub queue: usize,
    /// Maximum number of spans in a batch; a full batch is delivered at once.
    pub batch: usize,
    /// Longest wait until an incomplete batch is delivered.
    pub delay: Duration,
}

/// Options of a tracer.
#[derive(Debug, Clone)]
pub struct TracerOptions {
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Whether the trace context of a request is continued.
    pub continues: bool,
    /// Attributes of every database span.
    pub database: Vec<Attribute>,
    /// Limits of the queue.
    pub limits: QueueLimits,
}

/// Queues finished spans.
pub struct Tracer {
    options: TracerOptions,
    waiting: Mutex<Waiting>,
    /// There is a batch, or the tracer is closing.
    wake: Condvar,
    /// Everything has been delivered or dropped.
    closed: Condvar,
    exported: Counter,
    dropped: Counter,
    /// The begin of the current second and the number of statements sent as text in it.
    plans: Mutex<(Instant, u32)>,
}

#[derive(Default)]
struct Waiting {
    spans: Vec<Span>,
    /// Deadline of the last delivery, while closing.
    closing: Option<Instant>,
    closed: bool,
}

/// The next batch to deliver.
pub struct Batch {
    /// The spans; empty after the last batch.
    pub spans: Vec<Span>,
    /// Deadline of the delivery, while the process is exiting.
    pub deadline: Option<Instant>,
}

impl Tracer {
    /// Creates a tracer, which requires an exporter.
    pub fn new(options: TracerOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            closed: Condvar::new(),
            exported: metrics::counter!(TRACES_EXPORTED),
            dropped: metrics::counter!(TRACES_DROPPED),
            plans: Mutex::new((Instant::now(), 0)),
        })
    }

    /// Whether the trace context of a request is continued.
    pub fn continues(&self) -> bool {
        self.options.continues
    }

    /// Whether a request of this trace is sampled; the parent is its sender's span.
    pub fn samples(&self, parent: Option<&SpanContext>, trace: TraceId) -> bool {
        self.options.sampler.samples(parent.map(|parent| parent.is_sampled), trace)
    }

    /// Attributes of every database span.
    pub fn database(&self) -> &[Attribute] {
        &self.options.database
    }

    /// Whether another prepared statement may be sent as text in this second; it is then counted.
    pub fn may_plan_again(&self) -> bool {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.0.elapsed() >= Duration::from_secs(1) {
            *plans = (Instant::now(), 0);
        }
        plans.1 += 1;
        plans.1 <= PLANS_PER_SECOND
    }

    /// Queues a finished span, or drops it if the queue is full.
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

    /// Counts delivered and dropped spans.
    pub fn count(&self, exported: usize, dropped: usize) {
        self.exported.increment(exported as u64);
        self.dropped.increment(dropped as u64);
    }

    /// The deadline of the last delivery, if the process is exiting.
    pub fn closing(&self) -> Option<Instant> {
        self.lock().closing
    }

    /// Waits, unless the process is exiting.
    pub fn pause(&self, pause: Duration) {
        let is_open = |waiting: &mut Waiting| waiting.closing.is_none();
        drop(self.wake.wait_timeout_while(self.lock(), pause, is_open));
    }

    /// Closes the tracer at exit: waits until the queued spans are delivered, up to a time limit.
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

    /// Reports that nothing will be delivered any more.
    pub fn closed(&self) {
        self.lock().closed = true;
        self.closed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
