//! Logs to standard error and metrics for Prometheus: set up once per process.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;
use crate::db::batch::{BATCH_REFUSED, BATCH_SIZE, BATCH_WAIT};
use crate::db::lease::ABANDONED;
use crate::db::turns::TURNS_REFUSED;
use crate::log_output::{LOG_LINES_DROPPED, LogFormat, LogOutput};
use crate::server::access_log::AccessLog;
use crate::server::observe::REQUEST_DURATION;

/// Bucket bounds in seconds, as the semantic conventions advise.
const DURATION_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bucket bounds of batch sizes: 1 is a lone request, 128 a full batch; more share the reading of a list.
const BATCH_SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 512.0, 2048.0, 8192.0];

/// Bucket bounds in seconds of the wait for the batch before; a healthy one takes about a millisecond.
const BATCH_WAIT_BUCKETS: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0];

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

/// The access log, which the filter may silence with `access=off`.
pub fn access_log(config: &LogConfig, output: &LogOutput) -> AccessLog {
    if tracing::enabled!(target: "access", tracing::Level::INFO) {
        AccessLog::to(config.log_format, output.clone())
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
    for (name, buckets) in
        [(REQUEST_DURATION, DURATION_BUCKETS), (BATCH_SIZE, BATCH_SIZE_BUCKETS), (BATCH_WAIT, BATCH_WAIT_BUCKETS)]
    {
        let matcher = Matcher::Full(name.to_owned());
        builder = builder.set_buckets_for_metric(matcher, buckets).expect("the list of buckets is not empty");
    }
    let handle = builder.install_recorder().map_err(|_| TelemetryError::Twice)?;
    metrics::describe_histogram!(
        REQUEST_DURATION,
        metrics::Unit::Seconds,
        "Duration of HTTP requests, from the first header to the last byte of the answer."
    );
    metrics::describe_histogram!(
        BATCH_SIZE,
        metrics::Unit::Count,
        "Requests that shared a statement, or the reading of a list, by kind."
    );
    metrics::describe_histogram!(BATCH_WAIT, metrics::Unit::Seconds, "Wait of a request for the batch before its own.");
    metrics::describe_counter!(BATCH_REFUSED, "Requests refused because too many or too old ones waited.");
    metrics::describe_gauge!(
        "db_client_connection_count",
        "Connections to PostgreSQL, by pool (keys, lists, probe) and state."
    );
    metrics::describe_counter!(
        ABANDONED,
        "Statements cancelled because nobody waited for them any more or their deadline passed."
    );
    metrics::describe_counter!(TURNS_REFUSED, "Lists refused because too many waited, or one had waited too long.");
    metrics::describe_gauge!("db_client_connection_max", "Most connections that a pool may open.");
    metrics::describe_counter!("db_client_connection_errors_total", "Connection attempts to PostgreSQL that failed.");
    metrics::describe_counter!("cache_requests_total", "Requests to the air-quality cache: hit, shared, miss.");
    metrics::describe_counter!("cache_errors_total", "What Redis failed to do for the cache, by reason.");
    metrics::describe_gauge!("cache_redis_up", "1 while the cache is connected to Redis.");
    metrics::describe_counter!("air_quality_refreshes_total", "Answers about air quality read from PostgreSQL.");
    metrics::describe_counter!(LOG_LINES_DROPPED, "Log lines that were dropped because nobody read them.");
    metrics::counter!(LOG_LINES_DROPPED).increment(0);
    metrics::describe_gauge!("pycrudapi_build_info", "Always 1; the labels say what is running.");
    metrics::gauge!("pycrudapi_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
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
