//! `GET /metrics` in Prometheus' text format, on a listener of its own.

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

const METRICS: &[&str] = &["/metrics"];
/// What is routed here.
const ENDPOINTS: &[Endpoint] = &[Endpoint { templates: METRICS, methods: PUBLIC }];

/// Prometheus documentation, "Exposition formats", text format.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The routes of the metrics listener; `pools` by the name that their gauges carry.
pub fn routes(
    pools: Vec<(&'static str, Pool)>,
    handle: PrometheusHandle,
    log_dropped_file: Option<PathBuf>,
) -> BoxedFilter<(Response,)> {
    let pools: Arc<[_]> = pools.into();
    let relay = log_dropped_file.map(|file| Arc::new(Relay::new(file)));
    at(METRICS)
        .and(get_or_head())
        .then(move |matched: Matched| {
            let (pools, handle, relay) = (pools.clone(), handle.clone(), relay.clone());
            async move {
                if let Some(relay) = relay {
                    relay.count_dropped();
                }
                matched.answer(async { Ok(render(&pools, &handle)) }).await
            }
        })
        .or(method_not_allowed(ENDPOINTS))
        .unify()
        .boxed()
}

/// Gauges of the pools are read when asked for, and histograms brought up to now.
fn render(pools: &[(&'static str, Pool)], handle: &PrometheusHandle) -> Response {
    for &(name, ref pool) in pools {
        let usage = pool.usage();
        metrics::gauge!("db_client_connection_count", "pool" => name, "state" => "used").set(f64::from(usage.used));
        metrics::gauge!("db_client_connection_count", "pool" => name, "state" => "idle").set(f64::from(usage.idle));
        metrics::gauge!("db_client_connection_max", "pool" => name).set(f64::from(usage.max));
    }
    handle.run_upkeep();
    let mut response = Response::new(handle.render().into());
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    response
}

/// Who relays the log, and writes the number of lines it dropped into a file.
struct Relay {
    file: PathBuf,
    /// What was counted: at first what was dropped before this process began.
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

/// The number in a file; zero when there is none, since the log is no reason to fail.
fn number(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
