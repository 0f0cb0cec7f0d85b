//! Delivers spans to a collector, on a thread of its own.
//!
//! The thread has a runtime of its own, so that nothing which the collector does, or does not, is felt by requests, however
//! few threads those have. A batch is tried again until it is late; then it is dropped and counted, and a line in the log
//! says so once a minute at most.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::collector::{Address, Collector, DeliveryError};
use super::otlp;
use crate::trace::tracer::{Batch, Tracer};

/// The pause before a batch is tried again doubles from the one to the other.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two lines in the log about the same.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How spans are delivered.
#[derive(Clone)]
pub struct ExporterOptions {
    /// Where they go.
    pub address: Address,
    /// Longest that a batch is tried.
    pub timeout: Duration,
    /// What they are recorded by.
    pub resource: Vec<(String, String)>,
}

/// Delivers what a tracer takes in, until it is closed.
///
/// # Errors
/// When there is no thread or no runtime to be had.
pub fn start(tracer: Arc<Tracer>, options: ExporterOptions) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let collector = Collector::new(options.address.clone());
    let exporter = Exporter { tracer, collector, runtime, options, told: None, untold: 0 };
    thread::Builder::new().name("traces".to_owned()).spawn(move || exporter.run())?;
    Ok(())
}

struct Exporter {
    tracer: Arc<Tracer>,
    collector: Collector,
    runtime: Runtime,
    options: ExporterOptions,
    /// When the log was last told of a failure, and how many spans it has not been told of.
    told: Option<Instant>,
    untold: usize,
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
                Ok(unwanted) => self.tracer.count(count.saturating_sub(unwanted), unwanted.min(count)),
                Err(error) => {
                    self.tracer.count(0, count);
                    self.tell(&error, count);
                }
            }
        }
    }

    /// Tries until the collector has taken a batch, refuses it, or the batch is late.
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
                DeliveryError::Busy(_, Some(asked)) => asked.max(pause),
                _ => pause,
            };
            // At the end of the process there is no time for another try.
            if closing.is_some() || Instant::now() + wait >= late {
                return Err(error);
            }
            self.tracer.pause(wait);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn tell(&mut self, error: &DeliveryError, dropped: usize) {
        self.untold += dropped;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, url = %self.options.address.url, dropped = self.untold, "cannot deliver traces");
            (self.told, self.untold) = (Some(Instant::now()), 0);
        }
    }
}
