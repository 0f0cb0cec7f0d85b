//! Delivers spans to a collector, on a separate thread.
//!
//! The thread has its own runtime, so that the collector's behaviour does not affect requests, however few threads they have. A
//! batch is retried until its time limit; then it is dropped and counted, and logged at most once a minute.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::collector::{Address, Collector, DeliveryError};
use super::otlp;
use crate::trace::tracer::{Batch, Tracer};

/// The delay before a batch is retried doubles from the first value to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Shortest interval between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How spans are delivered.
#[derive(Clone)]
pub struct ExporterOptions {
    /// The collector.
    pub address: Address,
    /// Longest time to deliver a batch.
    pub timeout: Duration,
    /// Resource attributes.
    pub resource: Vec<(String, String)>,
}

/// Delivers the spans of a tracer, until it is closed.
///
/// # Errors
/// If the thread or its runtime cannot be started.
pub fn start(tracer: Arc<Tracer>, options: ExporterOptions) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let collector = Collector::new(options.address.clone());
    let exporter = Exporter { tracer, collector, runtime, options, last_log: None, unlogged: 0 };
    thread::Builder::new().name("traces".to_owned()).spawn(move || exporter.run())?;
    Ok(())
}

struct Exporter {
    tracer: Arc<Tracer>,
    collector: Collector,
    runtime: Runtime,
    options: ExporterOptions,
    /// When a failure was last logged, and how many spans have been dropped since.
    last_log: Option<Instant>,
    unlogged: usize,
}

impl Exporter {
    fn run(mut self) {
        loop {
            let Batch { spans, deadline } = self.tracer.next();
            if spans.is_empty() {
                if deadline.is_some() {
                    return self.tracer.closed();
                }
                continue;
            }
            let count = spans.len();
            let body = self.collector.body(otlp::request(&self.options.resource, spans));
            match self.deliver(&body) {
                Ok(rejected) => self.tracer.count(count.saturating_sub(rejected), rejected.min(count)),
                Err(error) => {
                    self.tracer.count(0, count);
                    self.log_failure(&error, count);
                }
            }
        }
    }

    /// Retries until the collector has accepted or rejected a batch, or its time limit has passed.
    fn deliver(&mut self, body: &Bytes) -> Result<usize, DeliveryError> {
        let late = Instant::now() + self.options.timeout;
        let mut pause = PAUSES.0;
        loop {
            let closing = self.tracer.closing();
            let left = closing.map_or(late, |closing| late.min(closing)).saturating_duration_since(Instant::now());
            let (runtime, collector) = (&self.runtime, &mut self.collector);
            let attempt = async { tokio::time::timeout(left, collector.deliver(body.clone())).await };
            let error = match runtime.block_on(attempt).unwrap_or(Err(DeliveryError::Timeout)) {
                Err(error) => error,
                delivered => return delivered,
            };
            let wait = match error {
                DeliveryError::Refused(_) | DeliveryError::Timeout => return Err(error),
                DeliveryError::Busy(_, Some(retry_after)) => retry_after.max(pause),
                _ => pause,
            };
            // When the process exits, there is no time to retry.
            if closing.is_some() || Instant::now() + wait >= late {
                return Err(error);
            }
            self.tracer.pause(wait);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn log_failure(&mut self, error: &DeliveryError, dropped: usize) {
        self.unlogged += dropped;
        if self.last_log.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, url = %self.options.address.url, dropped = self.unlogged, "cannot deliver traces");
            (self.last_log, self.unlogged) = (Some(Instant::now()), 0);
        }
    }
}
