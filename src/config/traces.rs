//! Settings of traces: the standard variables of OpenTelemetry that are supported.
//!
//! Without an endpoint, nothing is recorded. Other variables of OpenTelemetry have no effect.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, value_parser};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tokio_postgres::config::Host;
use warp::http::header::{HeaderName, HeaderValue};
use warp::http::uri::{Scheme, Uri};

use super::fault::WrongSetting;
use super::values::{Secret, millis, secret};
use crate::db::conninfo::ConnInfo;
use crate::db::tls::client_config;
use crate::trace::sampler::Sampler;
use crate::trace::span::Attribute;
use crate::trace::tracer::{QueueLimits, TracerOptions};

/// The path of traces below a general endpoint (OTLP specification, "Endpoint URLs for OTLP/HTTP").
const TRACES_PATH: &str = "v1/traces";
/// PostgreSQL's default port, which spans omit.
const POSTGRES_PORT: u16 = 5432;

/// Settings of traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub struct TracesConfig {
    /// Collector that receives traces by OTLP over HTTP; `/v1/traces` is appended: `http://otel-collector:4318`.
    ///
    /// Nothing is recorded without it or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.
    #[arg(long, env, value_parser = endpoint, hide_env_values = true)]
    pub otel_exporter_otlp_endpoint: Option<Uri>,

    /// URL of the collector for traces only, with its whole path: `http://otel-collector:4318/v1/traces`.
    #[arg(long, env, value_parser = endpoint, hide_env_values = true)]
    pub otel_exporter_otlp_traces_endpoint: Option<Uri>,

    /// Protocol: only HTTP with Protocol Buffers is supported.
    #[arg(long, env, value_enum, default_value_t = Protocol::HttpProtobuf, hide_env_values = true)]
    pub otel_exporter_otlp_protocol: Protocol,

    /// Protocol for traces only.
    #[arg(long, env, value_enum, hide_env_values = true)]
    pub otel_exporter_otlp_traces_protocol: Option<Protocol>,

    /// Headers for the collector, such as its key: `name=value` separated by commas, percent-encoded.
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub otel_exporter_otlp_headers: Option<Secret>,

    /// Headers for traces only.
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub otel_exporter_otlp_traces_headers: Option<Secret>,

    /// Longest time to deliver a batch of spans, including retries, in milliseconds (1 to 600000); then it is dropped.
    #[arg(long, env, default_value = "10000", value_parser = millis::<1, 600_000>, hide_env_values = true)]
    pub otel_exporter_otlp_timeout: Duration,

    /// Timeout for traces only.
    #[arg(long, env, value_parser = millis::<1, 600_000>, hide_env_values = true)]
    pub otel_exporter_otlp_traces_timeout: Option<Duration>,

    /// Compression of requests to the collector.
    #[arg(long, env, value_enum, default_value_t = Compression::None, hide_env_values = true)]
    pub otel_exporter_otlp_compression: Compression,

    /// File with the CA certificates for the collector's certificate; the system's by default.
    #[arg(long, env, hide_env_values = true)]
    pub otel_exporter_otlp_certificate: Option<PathBuf>,

    /// Exporter of traces: otlp, or none.
    #[arg(long, env, value_enum, default_value_t = Exporter::Otlp, hide_env_values = true)]
    pub otel_traces_exporter: Exporter,

    /// Which traces are recorded: always_on, always_off or traceidratio; with parentbased_, a request's `traceparent` decides
    /// if it has one.
    #[arg(long, env, default_value = "parentbased_always_on", value_parser = sampler, hide_env_values = true)]
    pub otel_traces_sampler: Sampler,

    /// The fraction of traces that traceidratio records (0 to 1).
    #[arg(long, env, default_value = "1", value_parser = ratio, hide_env_values = true)]
    pub otel_traces_sampler_arg: f64,

    /// `service.name` of all spans; pycrudapi by default.
    #[arg(long, env, hide_env_values = true)]
    pub otel_service_name: Option<String>,

    /// Further resource attributes of all spans: `name=value` separated by commas, percent-encoded.
    #[arg(long, env, value_parser = pairs, hide_env_values = true)]
    pub otel_resource_attributes: Option<Pairs>,

    /// Propagation of trace context: `tracecontext` (W3C), or `none`, which ignores the trace context of requests.
    #[arg(long, env, default_value = "tracecontext", value_delimiter = ',', value_parser = ["tracecontext", "baggage", "none"], hide_env_values = true)]
    pub otel_propagators: Vec<String>,

    /// Longest time that spans wait to be delivered in a batch, in milliseconds (1 to 600000).
    #[arg(long, env, default_value = "5000", value_parser = millis::<1, 600_000>, hide_env_values = true)]
    pub otel_bsp_schedule_delay: Duration,

    /// Like OTEL_EXPORTER_OTLP_TIMEOUT; the shorter of the two applies.
    #[arg(long, env, default_value = "30000", value_parser = millis::<1, 600_000>, hide_env_values = true)]
    pub otel_bsp_export_timeout: Duration,

    /// Maximum number of queued spans (1 to 1000000); further ones are dropped. A span takes about 2 KiB.
    #[arg(long, env, default_value_t = 2048, value_parser = value_parser!(u32).range(1..=1_000_000), hide_env_values = true)]
    pub otel_bsp_max_queue_size: u32,

    /// Maximum number of spans in a batch (1 to 100000).
    #[arg(long, env, default_value_t = 512, value_parser = value_parser!(u32).range(1..=100_000), hide_env_values = true)]
    pub otel_bsp_max_export_batch_size: u32,

    /// true disables traces, whatever else is set.
    #[arg(long, env, default_value_t = false, action = ArgAction::Set, hide_env_values = true)]
    pub otel_sdk_disabled: bool,
}

/// Protocols for the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP over HTTP with Protocol Buffers.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// Compression of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// gzip.
    Gzip,
}

/// Exporters of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Exporter {
    /// To the collector.
    Otlp,
    /// Nowhere.
    None,
}

/// A URL with headers, and the TLS configuration of an HTTPS client.
type Delivery = (Uri, Vec<(HeaderName, HeaderValue)>, Option<Arc<ClientConfig>>);

/// Names and values.
pub type Pairs = Box<[(String, String)]>;

/// How traces are recorded and delivered.
pub struct TraceOptions {
    /// Options of the tracer.
    pub tracer: TracerOptions,
    /// URL of the collector.
    pub url: Uri,
    /// Headers for the collector.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// TLS configuration, for https.
    pub tls: Option<Arc<ClientConfig>>,
    /// Longest time to deliver a batch.
    pub timeout: Duration,
    /// Resource attributes of all spans.
    pub resource: Vec<(String, String)>,
}

impl TracesConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// If headers or certificates are invalid.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.delivery().map(drop)
    }

    /// How traces are recorded; `None` if they are not. Spans of database operations include attributes of `database`.
    ///
    /// # Errors
    /// As [`TracesConfig::check`].
    pub fn options(&self, database: &ConnInfo) -> Result<Option<TraceOptions>, WrongSetting> {
        let Some((url, headers, tls)) = self.delivery()? else { return Ok(None) };
        let limits = QueueLimits {
            queue: self.otel_bsp_max_queue_size as usize,
            batch: self.otel_bsp_max_export_batch_size.min(self.otel_bsp_max_queue_size) as usize,
            delay: self.otel_bsp_schedule_delay,
        };
        let timeout = self.otel_exporter_otlp_traces_timeout.unwrap_or(self.otel_exporter_otlp_timeout);
        Ok(Some(TraceOptions {
            tracer: TracerOptions {
                sampler: self.otel_traces_sampler.with_ratio(self.otel_traces_sampler_arg),
                continues: self.otel_propagators.iter().any(|name| name == "tracecontext"),
                database: of_database(database),
                limits,
            },
            url,
            headers,
            gzip: self.otel_exporter_otlp_compression == Compression::Gzip,
            tls,
            timeout: timeout.min(self.otel_bsp_export_timeout),
            resource: self.resource(),
        }))
    }

    /// Where spans are delivered, and how.
    fn delivery(&self) -> Result<Option<Delivery>, WrongSetting> {
        let Some(url) = self.url()? else { return Ok(None) };
        let (given, name) = match &self.otel_exporter_otlp_traces_headers {
            Some(given) => (Some(given), "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
            None => (self.otel_exporter_otlp_headers.as_ref(), "OTEL_EXPORTER_OTLP_HEADERS"),
        };
        let headers = given.map_or(Ok(Vec::new()), |given| headers(name, given))?;
        if url.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Some((url, headers, None)));
        }
        let file = self.otel_exporter_otlp_certificate.as_deref();
        let tls = client_config(file).map_err(|error| {
            let reason = format!("expected a file with CA certificates: {error}");
            WrongSetting::of("OTEL_EXPORTER_OTLP_CERTIFICATE", "", &reason)
        })?;
        Ok(Some((url, headers, Some(tls))))
    }

    fn url(&self) -> Result<Option<Uri>, WrongSetting> {
        if self.otel_sdk_disabled || self.otel_traces_exporter == Exporter::None {
            return Ok(None);
        }
        if let Some(url) = &self.otel_exporter_otlp_traces_endpoint {
            return Ok(Some(url.clone()));
        }
        let Some(base) = &self.otel_exporter_otlp_endpoint else { return Ok(None) };
        let below = format!("{}/{TRACES_PATH}", base.to_string().trim_end_matches('/'));
        let url = endpoint(&below).map_err(|reason| WrongSetting::of("OTEL_EXPORTER_OTLP_ENDPOINT", base, reason))?;
        Ok(Some(url))
    }

    /// OTEL_SERVICE_NAME takes precedence over `service.name` in the attributes.
    fn resource(&self) -> Vec<(String, String)> {
        let given = self.otel_resource_attributes.as_deref().unwrap_or_default();
        let mut resource: Vec<(String, String)> = vec![
            (
                "service.name".to_owned(),
                self.otel_service_name.clone().unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()),
            ),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), uuid::Uuid::new_v4().to_string()),
        ];
        for (name, value) in given {
            match resource.iter_mut().find(|(known, _)| known == name) {
                Some(_) if name == "service.name" && self.otel_service_name.is_some() => {}
                Some((_, known)) => known.clone_from(value),
                None => resource.push((name.clone(), value.clone())),
            }
        }
        resource
    }
}

fn of_database(database: &ConnInfo) -> Vec<Attribute> {
    let config = &database.config;
    let mut attributes: Vec<Attribute> = vec![("db.system.name", "postgresql".into())];
    let name = config.get_dbname().or(config.get_user());
    attributes.extend(name.map(|name| ("db.namespace", name.to_owned().into())));
    let host = config.get_hosts().first().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    });
    attributes.extend(host.map(|host| ("server.address", host.into())));
    let port = config.get_ports().first().copied().filter(|port| *port != POSTGRES_PORT);
    attributes.extend(port.map(|port| ("server.port", port.into())));
    attributes
}

fn endpoint(text: &str) -> Result<Uri, &'static str> {
    const EXPECTED: &str = "expected an http or https URL without user and password";
    let url: Uri = text.parse().map_err(|_| EXPECTED)?;
    let is_known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme());
    let is_plain =
        url.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    if is_known && is_plain { Ok(url) } else { Err(EXPECTED) }
}

fn sampler(text: &str) -> Result<Sampler, String> {
    Sampler::named(text).map_err(|expected| expected.to_string())
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or("expected a number from 0 to 1")
}

/// `name=value` separated by commas, percent-encoded (W3C Baggage, which OpenTelemetry refers to).
fn pairs(text: &str) -> Result<Pairs, &'static str> {
    const EXPECTED: &str = "expected name=value separated by commas";
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or(EXPECTED)?;
            let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(std::borrow::Cow::into_owned);
            match (decoded(name), decoded(value)) {
                (Ok(name), Ok(value)) if !name.is_empty() => Ok((name, value)),
                _ => Err(EXPECTED),
            }
        })
        .collect()
}

/// The error never contains the given value.
fn headers(setting: &str, given: &Secret) -> Result<Vec<(HeaderName, HeaderValue)>, WrongSetting> {
    let wrong = || WrongSetting::of(setting, "", "expected header names and values, separated by commas");
    let pairs = pairs(given.reveal()).map_err(|_| wrong())?;
    let header = |(name, value): &(String, String)| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    pairs.iter().map(|pair| header(pair).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn config(arguments: &[&str]) -> TracesConfig {
        let command = TracesConfig::augment_args(Command::new("traces"))
            .mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        let matches = command.try_get_matches_from([&["traces"], arguments].concat()).expect("settings");
        TracesConfig::from_arg_matches(&matches).expect("settings")
    }

    #[test]
    fn a_general_endpoint_gets_the_path_of_traces_and_one_for_traces_is_used_as_it_is() {
        let url = |arguments: &[&str]| config(arguments).url().expect("right").map(|url| url.to_string());
        assert_eq!(url(&[]), None);
        for (given, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://collector/otlp", "https://collector/otlp/v1/traces"),
        ] {
            let everything = format!("--otel-exporter-otlp-endpoint={given}");
            assert_eq!(url(&[&everything]).as_deref(), Some(expected));
            let traces = "--otel-exporter-otlp-traces-endpoint=http://other:1/";
            assert_eq!(url(&[&everything, traces]).as_deref(), Some("http://other:1/"));
            assert_eq!(url(&[&everything, "--otel-sdk-disabled=true"]), None);
            assert_eq!(url(&[&everything, "--otel-traces-exporter=none"]), None);
        }
        for wrong in ["collector:4318", "grpc://collector:4317", "http://user:key@collector", "http://"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_service_name_can_be_set_in_two_ways() {
        let named = |arguments: &[&str]| {
            let resource = config(arguments).resource();
            let value = |name: &str| resource.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            (value("service.name").expect("a name"), value("deployment.environment.name"))
        };
        let attributes = "--otel-resource-attributes=service.name=api,deployment.environment.name=caf%C3%A9";
        assert_eq!(named(&[]), ("pycrudapi".to_owned(), None));
        assert_eq!(named(&[attributes]), ("api".to_owned(), Some("café".to_owned())));
        assert_eq!(named(&[attributes, "--otel-service-name=mine"]).0, "mine");
        assert!(pairs("name").is_err() && pairs("=value").is_err());
    }

    #[test]
    fn an_invalid_header_is_rejected_without_being_printed() {
        let given = |text: &str| headers("OTEL_EXPORTER_OTLP_HEADERS", &secret(text).expect("a value"));
        let found = given("api-key=s%20ecret,x-scope=a").expect("right");
        assert_eq!(found[0].1.to_str().expect("printable"), "s ecret");
        for wrong in ["hunter2", "a b=hunter2", "key=hunter2%0A"] {
            let error = given(wrong).expect_err("wrong").to_string();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("hunter2"), "{error}");
        }
    }
}
