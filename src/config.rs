//! Every setting, as a flag and an environment variable from one definition.
//!
//! Settings are read once at start; nothing else reads the environment. An error states the setting, the reason and an example.
//! Secrets have a type whose `Debug` prints nothing.

pub mod arguments;
mod auth;
mod backup;
mod bucket;
mod budget;
mod common;
mod database;
mod error;
mod fault;
mod issuer;
pub mod nginx;

mod sign_in;
pub mod traces;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, value_parser};
use redis::IntoConnectionInfo;

use crate::air_quality::cache::CacheOptions;
use crate::duration::{long_span, span};
use crate::http::host::Hosts;
use crate::log_output::LogFormat;
use crate::resource::registry::{self, RegistryError, Resources};
use crate::server::listener::ListenAddr;
pub use auth::{Auth, AuthConfig, known_resources, unknown_resource};
pub use backup::{BackupConfig, BackupPlaceConfig, RetentionConfig};
pub use bucket::BucketConfig;
pub use budget::{BudgetConfig, memory_limit};
pub use common::{CommonConfig, HttpPort};
pub use database::{DatabaseChoice, DatabaseConfig};
pub use error::ConfigError;
pub use fault::WrongSetting;
pub use traces::TracesConfig;
pub use values::{MetricsListen, Secret};
use values::{default_worker_threads, millis, secret, secret_in};

/// Settings of the log, common to all subcommands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// Log filter: off, error, warn, info, debug, trace, or per module as in `info,pycrudapi::db=debug`.
    ///
    /// The access log has the target `access`: `info,access=off` disables it.
    #[arg(long, env, default_value = "info", global = true, hide_env_values = true)]
    pub log: String,

    /// Format of log lines.
    #[arg(long, env, value_enum, default_value_t = LogFormat::Text, global = true, hide_env_values = true)]
    pub log_format: LogFormat,
}

/// The resources to serve.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub struct ResourcesConfig {
    /// Directory with descriptions of resources (`*.toml`), in addition to the built-in ones; a file with the name of a
    /// built-in one replaces it.
    #[arg(long, env, hide_env_values = true)]
    pub resources_dir: Option<PathBuf>,

    /// The resources to serve, separated by commas; all of them by default.
    #[arg(long, env, value_delimiter = ',', hide_env_values = true)]
    pub resources: Option<Vec<String>>,
}

impl ResourcesConfig {
    /// Reads the descriptions.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn load(&self) -> Result<Resources, RegistryError> {
        let names = |names: &Vec<String>| names.iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        registry::load(self.resources_dir.as_deref(), self.resources.as_ref().map(names).as_deref())
    }
}

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerConfig {
    /// Addresses to listen on: `host:port`, `unix:/path` or `fd:N` (a socket inherited from a supervisor), separated by commas.
    #[arg(long, env, default_value = "127.0.0.1:8000", value_delimiter = ',', hide_env_values = true)]
    pub listen: Vec<ListenAddr>,

    /// Address for /metrics, a separate one so that it cannot become public by accident: `host:port`, or `off`.
    #[arg(long, env, default_value = "127.0.0.1:9464", hide_env_values = true)]
    pub metrics_listen: MetricsListen,

    /// Threads that handle requests (1 to 256).
    ///
    /// The default is half of the processors, because nginx and PostgreSQL share them: if all three run on two processors, one
    /// thread answers a third more lookups than two, which spend their time waking each other.
    #[arg(long, env, default_value_t = default_worker_threads(), value_parser = value_parser!(u16).range(1..=256), hide_env_values = true)]
    pub worker_threads: u16,

    /// Run missing migrations at start; false leaves them to `pycrudapi migrate`.
    #[arg(long, env, default_value_t = true, action = ArgAction::Set, hide_env_values = true)]
    pub migrate: bool,

    /// Load the bundled data of each resource that has some into a database that has never been seeded with it.
    #[arg(long, env, default_value_t = true, action = ArgAction::Set, hide_env_values = true)]
    pub seed: bool,

    /// Answer PUT, PATCH and DELETE without If-Match with 428.
    ///
    /// Then no client can overwrite a change that it has not seen; but clients without support for ETags cannot write at all.
    #[arg(long, env, default_value_t = false, action = ArgAction::Set, hide_env_values = true)]
    pub require_if_match: bool,

    /// How long the response to a request with an Idempotency-Key is kept (1s to 720h): a number with s, m or h.
    ///
    /// A later retry is executed again; a longer time takes more space in the database.
    #[arg(long, env, default_value = "24h", value_parser = span::<720>, hide_env_values = true)]
    pub idempotency_ttl: Duration,

    /// How long history entries are kept (1s to 87600h): a number with s, m, h or d.
    ///
    /// By default they are kept forever, and the histories grow with every change. A row can be read or restored only as far
    /// back as its history reaches.
    #[arg(long, env, value_parser = long_span::<87_600>, hide_env_values = true)]
    pub history_retention: Option<Duration>,

    /// Maximum number of responses kept for one principal (10 to 100000000); beyond it, requests with a key get 429.
    ///
    /// Counted every ten seconds. Requests without credentials are not limited: they share one set of keys.
    #[arg(long, env, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(10..=100_000_000), hide_env_values = true)]
    pub idempotency_max_keys: u32,

    /// Host names that are served in addition to the local ones, separated by commas: `api.example.com`, `*.example.com`; or
    /// `*` for all.
    ///
    /// Local names are IP addresses, this machine's name, names without a dot, and names that end in localhost, local,
    /// internal, test, home.arpa, svc or svc.cluster.local. Requests for other names get 421; `*` lets any web page read and
    /// write through a host name of its own (DNS rebinding).
    #[arg(long, env, hide_env_values = true)]
    pub allowed_hosts: Option<Hosts>,

    /// Longest time for a request body to arrive, in milliseconds (100 to 600000); then the answer is 408.
    #[arg(long, env, default_value = "30000", value_parser = millis::<100, 600_000>, hide_env_values = true)]
    pub body_timeout_ms: Duration,

    /// Longest wait for a request's headers on a TCP connection, idle time included, in milliseconds (100 to 600000).
    ///
    /// Then the connection is closed. Unix sockets have no such limit: nginx keeps them open and enforces its own.
    #[arg(long, env, default_value = "60000", value_parser = millis::<100, 600_000>, hide_env_values = true)]
    pub header_timeout_ms: Duration,

    /// Longest time to keep accepting connections and to keep idle ones open after a stop was requested, in milliseconds (0 to
    /// 30000), as a part of DRAIN_TIMEOUT_MS.
    ///
    /// Load balancers must detect the stop in this time: by a failed `/readyz`, or by `Connection: close` on each connection.
    /// nginx keeps idle connections for at most two seconds. The phase ends earlier when no connection from before the stop is
    /// left.
    #[arg(long, env, default_value = "3000", value_parser = millis::<0, 30_000>, hide_env_values = true)]
    pub drain_grace_ms: Duration,

    /// File with the number of log lines dropped by the process that relays the log, added to `log_lines_dropped_total`; set by
    /// supervisord.
    #[arg(long, env, hide_env_values = true)]
    pub log_dropped_file: Option<PathBuf>,

    /// Settings shared with nginx.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Authentication.
    #[command(flatten)]
    pub auth: AuthConfig,

    /// Memory and disk for requests.
    #[command(flatten)]
    pub budget: BudgetConfig,

    /// Settings of the air-quality cache.
    #[command(flatten)]
    pub air_quality: CacheConfig,

    /// Settings of traces.
    #[command(flatten)]
    pub traces: TracesConfig,
}

/// Settings of the air-quality cache.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Air-quality cache")]
pub struct CacheConfig {
    /// How long a cached answer is kept (1s to 24h): a number with s, m or h.
    ///
    /// An import invalidates it at once, so a longer time only costs memory; a shorter one causes more queries to PostgreSQL.
    #[arg(long, env, default_value = "1h", value_parser = span::<24>, hide_env_values = true)]
    pub air_quality_cache_ttl: Duration,

    /// Redis that caches the answers for all replicas: `redis://[user]:password@host:port/db`, `rediss://` for TLS, or
    /// `unix:///path?db=0&pass=password`.
    ///
    /// Without it, each process has its own cache. Redis may be unavailable at start and at any time.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub redis_url: Option<Secret>,

    /// File with the Redis password, such as a mounted secret, instead of the password in REDIS_URL.
    #[arg(long, env, hide_env_values = true)]
    pub redis_password_file: Option<PathBuf>,

    /// Longest total time for which a request waits for Redis, in milliseconds (5 to 10000); then PostgreSQL is queried.
    ///
    /// A shorter time bypasses a healthy but busy Redis; a longer one delays the first answers when Redis hangs.
    #[arg(long, env, default_value = "250", value_parser = millis::<5, 10_000>, hide_env_values = true)]
    pub redis_timeout_ms: Duration,
}

impl CacheConfig {
    /// Options of the cache.
    ///
    /// # Errors
    /// If the address is invalid, or the password file cannot be read.
    pub fn options(&self) -> Result<CacheOptions, ConfigError> {
        let redis = self.redis_url.as_ref().map(|url| self.redis(url.reveal())).transpose()?;
        Ok(CacheOptions { ttl: self.air_quality_cache_ttl, redis, redis_timeout: self.redis_timeout_ms })
    }

    /// Creates a client, which does not connect yet.
    fn redis(&self, url: &str) -> Result<redis::Client, ConfigError> {
        // The category describes the error and never contains the value.
        let fault = |error: redis::RedisError| ConfigError::Redis(error.category().to_owned());
        let mut info = url.into_connection_info().map_err(fault)?;
        if let Some(path) = &self.redis_password_file {
            let password = secret_in("REDIS_PASSWORD_FILE", path, "it in REDIS_URL")?;
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        redis::Client::open(info).map_err(fault)
    }
}
