//! Logs to standard error and metrics for Prometheus: set up once per process.

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
use crate::db::pooled_session::ABANDONED;
use crate::db::operation::OPERATION_DURATION;
use crate::db::pool::{CONNECTION_ERRORS, TIMEOUTS, WAIT_TIME};
use crate::db::reads::{LISTS_IN_FLIGHT, LISTS_PAUSED};
use crate::db::replica::{REPLICA_LAG, REPLICA_READS, REPLICA_UP};
use crate::db::fair_queue::LISTS_REFUSED;
use crate::http::budget::{BUDGET_REFUSED, BUDGET_USED};
use crate::log_output::{LOG_LINES_DROPPED, LogFormat, LogOutput};
use crate::ops::metrics::{CONNECTIONS, CONNECTIONS_MAX, READY};
use crate::ops::runtime::{ALIVE_TASKS, BUSY_RATIO, QUEUE_DEPTH};
use crate::resource::history::expiry::ENTRIES_REMOVED;
use crate::server::access_log::AccessLog;
use crate::server::observe::{ACTIVE_REQUESTS, REQUEST_DURATION, REQUEST_SIZE, RESPONSE_SIZE};
use crate::trace::tracer::{TRACES_DROPPED, TRACES_EXPORTED, Tracer};

/// Bucket bounds in seconds, as the semantic conventions advise for requests.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The same for what is asked of a database.
const DATABASE_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Bucket bounds in bytes: a row, a page, a chunk of a list, and bodies of many rows.
const BODY_BUCKETS: &[f64] = &[1024.0, 16_384.0, 131_072.0, 1_048_576.0, 16_777_216.0];

/// Bucket bounds of batch sizes: 1 is a lone request, 128 a full batch; more share the reading of a list.
const BATCH_SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0, 8192.0];

/// Bucket bounds in seconds of the wait for the batch before; a healthy one takes about a millisecond.
const BATCH_WAIT_BUCKETS: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0];

/// Every histogram, with its bounds.
const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (REQUEST_DURATION, DURATION_BUCKETS, "Duration of requests, from the first header to the last byte of the answer."),
    (REQUEST_SIZE, BODY_BUCKETS, "Bytes of the bodies of requests that have one."),
    (RESPONSE_SIZE, BODY_BUCKETS, "Bytes of the bodies of answers."),
    (WAIT_TIME, DATABASE_BUCKETS, "Time until a connection to PostgreSQL was free, by pool."),
    (OPERATION_DURATION, DATABASE_BUCKETS, "Duration of what is asked of PostgreSQL, from sending it to its end."),
    (BATCH_SIZE, BATCH_SIZE_BUCKETS, "Requests that shared a statement, or the reading of a list, by kind."),
    (BATCH_WAIT, BATCH_WAIT_BUCKETS, "Wait of a request for the batch before its own."),
];

/// Every gauge.
const GAUGES: &[(&str, &str)] = &[
    (ACTIVE_REQUESTS, "Requests that are being answered."),
    (CONNECTIONS, "Connections to PostgreSQL, by pool (keys, lists, probe) and state."),
    (CONNECTIONS_MAX, "Most connections that a pool may open."),
    (LISTS_IN_FLIGHT, "Statements at work whose cost grows with a table."),
    (REPLICA_UP, "1 while lists are read on the replica."),
    (REPLICA_LAG, "How far the replica is behind the primary, at most."),
    (READY, "What readiness asks for: 1 where a check is passed."),
    (BUSY_RATIO, "The part of their time that the threads for requests had work, over the last 5 seconds."),
    (QUEUE_DEPTH, "Tasks that no thread has taken yet."),
    (ALIVE_TASKS, "Tasks that have not ended."),
    #[cfg(feature = "embedded")]
    (EMBEDDED_UP, "1 while the embedded PostgreSQL serves."),
    ("cache_redis_up", "1 while the cache is connected to Redis."),
    (BUDGET_USED, "Bytes that requests hold now, by budget."),
    ("auth_keys", "Keys of the identity provider that can be used."),
    ("auth_keys_fetched_timestamp_seconds", "When the identity provider's keys were last read."),
    (BUILD_INFO, "Always 1; the labels say what is running."),
];

/// How a counter begins: one that is there before anything was counted shows the first of what it counts.
enum Counted {
    /// Without a label.
    Whole,
    /// By the values of a label.
    By(&'static str, &'static [&'static str]),
    /// By labels that whoever counts knows.
    Elsewhere,
}

/// Every counter.
const COUNTERS: &[(&str, &str, Counted)] = &[
    (TIMEOUTS, "Waits for a connection that were given up, by pool.", Counted::Elsewhere),
    (CONNECTION_ERRORS, "Connection attempts to PostgreSQL that failed, by pool.", Counted::Elsewhere),
    (BATCH_REFUSED, "Requests refused because too many or too old ones waited.", Counted::Elsewhere),
    (
        ABANDONED,
        "Statements cancelled because nobody waited for them any more or their deadline passed.",
        Counted::Whole,
    ),
    (LISTS_REFUSED, "Lists refused because too many waited, or one had waited too long.", Counted::Whole),
    (LISTS_PAUSED, "Long lists that were followed by a pause, for requests of single rows.", Counted::Whole),
    (
        REPLICA_READS,
        "Readings of lists where there is a replica: done there, or why on the primary.",
        Counted::Elsewhere,
    ),
    (ENTRIES_REMOVED, "Entries of histories that had passed their time.", Counted::Elsewhere),
    #[cfg(feature = "embedded")]
    (EMBEDDED_RESTARTS, "Times that the embedded PostgreSQL was started again after it had died.", Counted::Elsewhere),
    ("cache_requests_total", "Requests to the air-quality cache.", Counted::By("result", &["hit", "shared", "miss"])),
    ("cache_errors_total", "What Redis failed to do for the cache, by reason.", Counted::Elsewhere),
    ("air_quality_refreshes_total", "Answers about air quality read from PostgreSQL.", Counted::Whole),
    (
        "idempotency_requests_total",
        "Requests with an Idempotency-Key.",
        Counted::By("result", &["first", "replayed", "reused", "in_flight", "too_many"]),
    ),
    (BUDGET_REFUSED, "Times that nothing was left for a request, by budget.", Counted::Elsewhere),
    ("auth_requests_total", "Requests for what is not public.", Counted::Elsewhere),
    ("auth_key_fetches_total", "Readings of the identity provider's keys.", Counted::Elsewhere),
    (TRACES_EXPORTED, "Spans that a collector of traces has taken.", Counted::Whole),
    (TRACES_DROPPED, "Spans that were dropped: the collector was away, slow, or refused them.", Counted::Whole),
    (LOG_LINES_DROPPED, "Log lines that were dropped because nobody read them.", Counted::Whole),
];

const BUILD_INFO: &str = "pycrudapi_build_info";

/// Histograms keep each value until it is sorted into its bucket. At 60,000 requests a second that is 4 MB a second.
const SORT_EVERY: Duration = Duration::from_millis(250);

/// Why logs or metrics could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("LOG is malformed; example: LOG=info,pycrudapi::db=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It was done before in this process.
    #[error("telemetry is already set up in this process")]
    Twice,
}

/// Sends log lines, and what a panic says, to this output from now on.
///
/// # Errors
/// When the filter is malformed or a log is set up already.
pub fn init_logs(config: &LogConfig, output: &LogOutput) -> Result<(), TelemetryError> {
    let in_panic = output.clone();
    panic::set_hook(Box::new(move |panic| {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let mut text = format!("thread '{name}' {panic}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{backtrace}"));
        }
        in_panic.say_in_panic(&text);
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

/// The access log, which the filter may silence with `access=off`. `is_told` says that nginx beside this server has a line for
/// each request: then there is a second one only if the filter names `access`.
pub fn access_log(config: &LogConfig, output: &LogOutput, is_told: bool) -> AccessLog {
    let is_named = config.log.split(',').any(|directive| directive.trim().starts_with("access"));
    if tracing::enabled!(target: "access", tracing::Level::INFO) && (is_named || !is_told) {
        let probes = tracing::enabled!(target: "access", tracing::Level::DEBUG);
        AccessLog::to(config.log_format, output.clone(), probes)
    } else {
        AccessLog::off()
    }
}

/// Collects metrics from now on; the handle renders them.
///
/// # Errors
/// When metrics are collected already.
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
    for (name, help, counted) in COUNTERS {
        metrics::describe_counter!(*name, *help);
        match counted {
            Counted::Whole => metrics::counter!(*name).increment(0),
            Counted::By(label, values) => {
                values.iter().for_each(|value| metrics::counter!(*name, *label => *value).increment(0));
            }
            Counted::Elsewhere => {}
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

/// Records traces from now on, where there is somewhere to deliver them.
///
/// # Errors
/// When there is no thread for it.
pub fn traces(options: Option<TraceOptions>) -> std::io::Result<Option<Arc<Tracer>>> {
    let Some(TraceOptions { tracer, url, headers, gzip, tls, timeout, resource }) = options else { return Ok(None) };
    let tracer = Tracer::new(tracer);
    let address = Address { url, headers, gzip, tls };
    exporter::start(tracer.clone(), ExporterOptions { address, timeout, resource })?;
    Ok(Some(tracer))
}

/// Keeps the memory of the histograms bounded, whether or not anybody asks for them; never returns.
pub async fn sort_histograms(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(SORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
