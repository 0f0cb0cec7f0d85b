//! Metrics of the threads that handle requests.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// The ratio of the time that the threads were busy, over the last interval.
pub const BUSY_RATIO: &str = "tokio_workers_busy_ratio";
/// Tasks that no thread has picked up yet.
pub const QUEUE_DEPTH: &str = "tokio_global_queue_depth";
/// Tasks that have not completed.
pub const ALIVE_TASKS: &str = "tokio_alive_tasks";

/// The interval: at least one lies between two scrapes.
const EVERY: Duration = Duration::from_secs(5);

/// Measures the current runtime; never returns.
pub async fn measure() {
    let runtime = Handle::current().metrics();
    let busy = metrics::gauge!(BUSY_RATIO);
    let mut before = (Instant::now(), busy_time(&runtime));
    loop {
        tokio::time::sleep(EVERY).await; // time itself is what is measured
        let now = (Instant::now(), busy_time(&runtime));
        let (passed, spent) = (now.0 - before.0, now.1.saturating_sub(before.1));
        busy.set(spent.as_secs_f64() / passed.as_secs_f64() / workers(&runtime));
        before = now;
    }
}

/// Records the current values.
pub fn record() {
    let runtime = Handle::current().metrics();
    metrics::gauge!(QUEUE_DEPTH).set(count(runtime.global_queue_depth()));
    metrics::gauge!(ALIVE_TASKS).set(count(runtime.num_alive_tasks()));
}

fn busy_time(runtime: &RuntimeMetrics) -> Duration {
    (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum()
}

fn workers(runtime: &RuntimeMetrics) -> f64 {
    count(runtime.num_workers().max(1))
}

#[expect(clippy::cast_precision_loss, reason = "a process has far fewer tasks")]
fn count(number: usize) -> f64 {
    number as f64
}
