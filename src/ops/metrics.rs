//! `GET /metrics` in Prometheus' text format, on a separate listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_exporter_prometheus::PrometheusHandle;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use crate::db::pool::Pool;
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::route::{Matched, at, get_or_head, method_not_allowed};
use crate::log_output::LOG_LINES_DROPPED;
use crate::ops::health::Health;
use crate::ops::{process, runtime};

const METRICS: &[&str] = &["/metrics"];
/// The endpoints of this module.
const ENDPOINTS: &[Endpoint] = &[Endpoint { templates: METRICS, methods: PUBLIC }];

/// Name of the gauge of connections, by pool and state (`db.client.connection.count`).
pub const CONNECTIONS: &str = "db_client_connection_count";
/// Name of the gauge of a pool's maximum size (`db.client.connection.max`).
pub const CONNECTIONS_MAX: &str = "db_client_connection_max";
/// Name of the gauge of the readiness checks: 1 if a check passed.
pub const READY: &str = "ready";

/// Prometheus documentation, "Exposition formats", text format.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The routes of the metrics listener; `pools` with the names that label their gauges.
pub fn routes(
    pools: Vec<(&'static str, Pool)>,
    health: Arc<Health>,
    handle: PrometheusHandle,
    log_dropped_file: Option<PathBuf>,
) -> BoxedFilter<(Response,)> {
    let pools: Arc<[_]> = pools.into();
    let relay = log_dropped_file.map(|file| Arc::new(Relay::new(file)));
    at(METRICS)
        .and(get_or_head())
        .then(move |matched: Matched| {
            let (pools, health, handle, relay) = (pools.clone(), health.clone(), handle.clone(), relay.clone());
            async move {
                if let Some(relay) = relay {
                    relay.count_dropped();
                }
                matched.answer(async { Ok(render(&pools, &health, handle).await) }).await
            }
        })
        .or(method_not_allowed(ENDPOINTS))
        .unify()
        .boxed()
}

/// Reads the gauges, and updates histograms.
async fn render(pools: &[(&'static str, Pool)], health: &Health, handle: PrometheusHandle) -> Response {
    for &(name, ref pool) in pools {
        let usage = pool.usage();
        metrics::gauge!(CONNECTIONS, "pool" => name, "state" => "used").set(f64::from(usage.used));
        metrics::gauge!(CONNECTIONS, "pool" => name, "state" => "idle").set(f64::from(usage.idle));
        metrics::gauge!(CONNECTIONS_MAX, "pool" => name).set(f64::from(usage.max));
    }
    for (check, is_passed) in health.checks().await.passed() {
        metrics::gauge!(READY, "check" => check).set(if is_passed { 1.0 } else { 0.0 });
    }
    runtime::record();
    // Reads files and renders a long text, which must not block the threads that handle requests.
    let text = tokio::task::spawn_blocking(move || {
        handle.run_upkeep();
        handle.render() + &process::exposition()
    });
    let text = text.await.unwrap_or_default(); // the task does not panic
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    response
}

/// The process that relays the log; it writes the number of dropped lines to a file.
struct Relay {
    file: PathBuf,
    /// The last number; initially the lines dropped before this process started.
    counted: AtomicU64,
}

impl Relay {
    fn new(file: PathBuf) -> Self {
        let counted = AtomicU64::new(number(&file));
        Self { file, counted }
    }

    fn count_dropped(&self) {
        let dropped = number(&self.file);
        let before = self.counted.fetch_max(dropped, Ordering::Relaxed);
        metrics::counter!(LOG_LINES_DROPPED).increment(dropped.saturating_sub(before));
    }
}

/// The number in a file; zero if it cannot be read, because logging must never cause a failure.
fn number(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
