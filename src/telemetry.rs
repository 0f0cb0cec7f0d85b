//! Logs to standard error and metrics for Prometheus, set up once per process.

mod collector;
mod exporter;
mod otlp;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;
use crate::config::traces::TraceOptions;
use crate::db::batch::{BATCH_REFUSED, BATCH_SIZE, BATCH_WAIT};
use collector::Address;
use exporter::ExporterOptions;

#[cfg(feature = "embedded")]
use crate::db::embedded::{EMBEDDED_RESTARTS, EMBEDDED_UP};
use crate::db::fair_queue::LISTS_REFUSED;
use crate::db::operation::OPERATION_DURATION;
use crate::db::pool::{CONNECTION_ERRORS, TIMEOUTS, WAIT_TIME};
use crate::db::pooled_session::ABANDONED;
use crate::db::reads::{LISTS_IN_FLIGHT, LISTS_PAUSED};
use crate::db::replica::{REPLICA_LAG, REPLICA_READS, REPLICA_UP};
use crate::http::budget::{BUDGET_REFUSED, BUDGET_USED};
use crate::log_output::{LOG_LINES_DROPPED, LogFormat, LogOutput};
use crate::ops::metrics::{CONNECTIONS, CONNECTIONS_MAX, READY};
use crate::ops::runtime::{ALIVE_TASKS, BUSY_RATIO, QUEUE_DEPTH};
use crate::resource::history::expiry::ENTRIES_REMOVED;
use crate::server::access_log::AccessLog;
use crate::server::observe::{ACTIVE_REQUESTS, REQUEST_DURATION, REQUEST_SIZE, RESPONSE_SIZE};
use crate::trace::tracer::{TRACES_DROPPED, TRACES_EXPORTED, Tracer};

/// Bucket bounds in seconds, as the semantic conventions recommend for requests.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bucket bounds in seconds for database operations.
const DATABASE_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Bucket bounds in bytes: a row, a page, a chunk of a list, and bodies of many rows.
const BODY_BUCKETS: &[f64] = &[1024.0, 16_384.0, 131_072.0, 1_048_576.0, 16_777_216.0];

/// Bucket bounds of batch sizes: 1 is a single request, 128 a full batch; larger ones are coalesced list reads.
const BATCH_SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0, 8192.0];

/// Bucket bounds in seconds of the wait for the previous batch; a normal one takes about a millisecond.
const BATCH_WAIT_BUCKETS: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0];

/// Every histogram, with its bounds.
const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (
        REQUEST_DURATION,
        DURATION_BUCKETS,
        "Duration of requests, from the first header to the last byte of the response.",
    ),
    (REQUEST_SIZE, BODY_BUCKETS, "Size of request bodies in bytes."),
    (RESPONSE_SIZE, BODY_BUCKETS, "Size of response bodies in bytes."),
    (WAIT_TIME, DATABASE_BUCKETS, "Wait for a free connection to PostgreSQL, by pool."),
    (OPERATION_DURATION, DATABASE_BUCKETS, "Duration of PostgreSQL operations, from sending to their end."),
    (BATCH_SIZE, BATCH_SIZE_BUCKETS, "Requests that shared a statement or a list read, by kind."),
    (BATCH_WAIT, BATCH_WAIT_BUCKETS, "Wait of a request for the previous batch."),
];

/// Every gauge.
const GAUGES: &[(&str, &str)] = &[
    (ACTIVE_REQUESTS, "Requests in progress."),
    (CONNECTIONS, "Connections to PostgreSQL, by pool (keys, lists, probe) and state."),
    (CONNECTIONS_MAX, "Maximum number of connections of a pool."),
    (LISTS_IN_FLIGHT, "Running statements whose cost grows with a table."),
    (REPLICA_UP, "1 while lists are read on the replica."),
    (REPLICA_LAG, "Upper bound of the replica's lag behind the primary."),
    (READY, "Readiness checks: 1 if the check passes."),
    (BUSY_RATIO, "Fraction of time that the request threads were busy, over the last 5 seconds."),
    (QUEUE_DEPTH, "Tasks waiting for a thread."),
    (ALIVE_TASKS, "Tasks that have not ended."),
    #[cfg(feature = "embedded")]
    (EMBEDDED_UP, "1 while the embedded PostgreSQL is running."),
    ("cache_redis_up", "1 while the cache is connected to Redis."),
    (BUDGET_USED, "Bytes in use by requests, by budget."),
    ("auth_keys", "Usable keys of the identity provider."),
    ("auth_keys_fetched_timestamp_seconds", "When the identity provider's keys were last read."),
    (BUILD_INFO, "Always 1; the labels identify the build."),
];

/// Initial values of a counter: if it exists with 0 before the first event, the first increase is visible.
enum Initial {
    /// One counter without labels.
    Unlabelled,
    /// One for each value of a label.
    Labelled(&'static str, &'static [&'static str]),
    /// Initialised where it is counted, because its labels are known only there.
    Elsewhere,
}

/// Every counter.
const COUNTERS: &[(&str, &str, Initial)] = &[
    (TIMEOUTS, "Timed-out waits for a connection, by pool.", Initial::Elsewhere),
    (CONNECTION_ERRORS, "Failed connection attempts to PostgreSQL, by pool.", Initial::Elsewhere),
    (BATCH_REFUSED, "Requests refused because too many were waiting or they had waited too long.", Initial::Elsewhere),
    (
        ABANDONED,
        "Statements cancelled because their clients had disconnected or their deadline had passed.",
        Initial::Unlabelled,
    ),
    (LISTS_REFUSED, "Lists refused because too many were waiting or they had waited too long.", Initial::Unlabelled),
    (LISTS_PAUSED, "Long list reads that were followed by a pause, for requests of single rows.", Initial::Unlabelled),
    (REPLICA_READS, "List reads if there is a replica: done there, or why on the primary.", Initial::Elsewhere),
    (ENTRIES_REMOVED, "History entries removed after their retention time.", Initial::Elsewhere),
    #[cfg(feature = "embedded")]
    (EMBEDDED_RESTARTS, "Restarts of the embedded PostgreSQL after it had exited.", Initial::Elsewhere),
    (
        "cache_requests_total",
        "Requests to the air-quality cache.",
        Initial::Labelled("result", &["hit", "shared", "miss"]),
    ),
    ("cache_errors_total", "Errors of Redis as a cache, by reason.", Initial::Elsewhere),
    ("air_quality_refreshes_total", "Air-quality answers read from PostgreSQL.", Initial::Unlabelled),
    (
        "idempotency_requests_total",
        "Requests with an Idempotency-Key.",
        Initial::Labelled("result", &["first", "replayed", "reused", "in_flight", "too_many"]),
    ),
    (BUDGET_REFUSED, "Requests refused because a budget was exhausted, by budget.", Initial::Elsewhere),
    ("auth_requests_total", "Requests to routes that are not public.", Initial::Elsewhere),
    ("auth_key_fetches_total", "Fetches of the identity provider's keys.", Initial::Elsewhere),
    (TRACES_EXPORTED, "Spans accepted by the trace collector.", Initial::Unlabelled),
    (
        TRACES_DROPPED,
        "Spans dropped because the collector was unreachable or slow, or rejected them.",
        Initial::Unlabelled,
    ),
    (LOG_LINES_DROPPED, "Log lines dropped because the output was not read.", Initial::Unlabelled),
];

const BUILD_INFO: &str = "pycrudapi_build_info";

/// Histograms keep each value until it is sorted into its bucket: at 60,000 requests per second, 4 MB per second.
const SORT_INTERVAL: Duration = Duration::from_millis(250);

/// Why logs or metrics could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("LOG is malformed; example: LOG=info,pycrudapi::db=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// They are already set up in this process.
    #[error("telemetry is already set up in this process")]
    Twice,
}

/// Sends log lines and panic messages to this output from now on.
///
/// # Errors
/// If the filter is invalid or a log is already set up.
pub fn init_logs(config: &LogConfig, output: &LogOutput) -> Result<(), TelemetryError> {
    let in_panic = output.clone();
    panic::set_hook(Box::new(move |panic| {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let mut text = format!("thread '{name}' {panic}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{backtrace}"));
        }
        in_panic.write_line_in_panic(&text);
    }));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(&config.log)?)
        .with_writer(output.clone())
        .with_ansi(std::io::stderr().is_terminal());
    let done = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    done.map_err(|_| TelemetryError::Twice)
}

/// The access log, which the filter can disable with `access=off`. If nginx in front of this server logs each request
/// (`is_behind_nginx`), the log is written only if the filter contains `access`.
pub fn access_log(config: &LogConfig, output: &LogOutput, is_behind_nginx: bool) -> AccessLog {
    let is_named = config.log.split(',').any(|directive| directive.trim().starts_with("access"));
    if tracing::enabled!(target: "access", tracing::Level::INFO) && (is_named || !is_behind_nginx) {
        let probes = tracing::enabled!(target: "access", tracing::Level::DEBUG);
        AccessLog::to(config.log_format, output.clone(), probes)
    } else {
        AccessLog::off()
    }
}

/// Collects metrics from now on; the handle renders them.
///
/// # Errors
/// If metrics are already being collected.
pub fn init_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets, _) in HISTOGRAMS {
        let matcher = Matcher::Full((*name).to_owned());
        builder = builder.set_buckets_for_metric(matcher, buckets).expect("the list of buckets is not empty");
    }
    let handle = builder.install_recorder().map_err(|_| TelemetryError::Twice)?;
    for (name, _, help) in HISTOGRAMS {
        metrics::describe_histogram!(*name, *help);
    }
    for (name, help) in GAUGES {
        metrics::describe_gauge!(*name, *help);
    }
    for (name, help, initial) in COUNTERS {
        metrics::describe_counter!(*name, *help);
        match initial {
            Initial::Unlabelled => metrics::counter!(*name).increment(0),
            Initial::Labelled(label, values) => {
                values.iter().for_each(|value| metrics::counter!(*name, *label => *value).increment(0));
            }
            Initial::Elsewhere => {}
        }
    }
    let build = match option_env!("REVISION").filter(|revision| !revision.is_empty() && *revision != "unknown") {
        Some(revision) => {
            metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "revision" => revision)
        }
        None => metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")),
    };
    build.set(1.0);
    Ok(handle)
}

/// Records traces from now on, if there is a collector.
///
/// # Errors
/// If the delivery thread cannot be started.
pub fn traces(options: Option<TraceOptions>) -> std::io::Result<Option<Arc<Tracer>>> {
    let Some(TraceOptions { tracer, url, headers, gzip, tls, timeout, resource }) = options else { return Ok(None) };
    let tracer = Tracer::new(tracer);
    let address = Address { url, headers, gzip, tls };
    exporter::start(tracer.clone(), ExporterOptions { address, timeout, resource })?;
    Ok(Some(tracer))
}

/// Bounds the memory of the histograms even if metrics are never requested; never returns.
pub async fn sort_histograms(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(SORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
