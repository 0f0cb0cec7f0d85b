//! How busy the threads are that handle requests.

use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

/// The part of their time that the threads had work, over the last interval.
pub const BUSY_RATIO: &str = "tokio_workers_busy_ratio";
/// Tasks that no thread has taken yet.
pub const QUEUE_DEPTH: &str = "tokio_global_queue_depth";
/// Tasks that have not ended.
pub const ALIVE_TASKS: &str = "tokio_alive_tasks";

/// The interval: between two scrapes there are one or more.
const EVERY: Duration = Duration::from_secs(5);

/// Measures the runtime that it runs on; never returns.
pub async fn measure() {
    let runtime = Handle::current().metrics();
    let busy = metrics::gauge!(BUSY_RATIO);
    let mut before = (Instant::now(), busy_time(&runtime));
    loop {
        tokio::time::sleep(EVERY).await; // what is measured is a time
        let now = (Instant::now(), busy_time(&runtime));
        let (passed, spent) = (now.0 - before.0, now.1.saturating_sub(before.1));
        busy.set(spent.as_secs_f64() / passed.as_secs_f64() / workers(&runtime));
        before = now;
    }
}

/// What is known at any moment.
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
