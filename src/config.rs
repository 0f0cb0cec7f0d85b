//! Every setting, as a flag and an environment variable from one definition.
//!
//! Read once at the start; nothing else reads the environment. A fault names the setting, the reason and an example.
//! Secrets have a type whose `Debug` prints nothing.

pub mod arguments;
mod auth;
mod backup;
mod bucket;
mod common;
mod database;
mod error;
mod fault;
mod issuer;
pub mod nginx;
mod room;
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
pub use common::{CommonConfig, HttpPort};
pub use database::{DatabaseChoice, DatabaseConfig};
pub use error::ConfigError;
pub use fault::WrongSetting;
pub use room::{RoomConfig, memory_limit};
pub use traces::TracesConfig;
pub use values::{MetricsListen, Secret};
use values::{default_worker_threads, millis, secret, secret_in};

/// Settings of the log, common to all subcommands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// What is logged: off, error, warn, info, debug, trace, or per module as in `info,pycrudapi::db=debug`.
    ///
    /// The access log has the target `access`: `info,access=off` silences it.
    #[arg(long, env, default_value = "info", global = true, hide_env_values = true)]
    pub log: String,

    /// How a log line looks.
    #[arg(long, env, value_enum, default_value_t = LogFormat::Text, global = true, hide_env_values = true)]
    pub log_format: LogFormat,
}

/// Which resources there are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Resources")]
pub struct ResourcesConfig {
    /// Folder with descriptions of resources (`*.toml`), in addition to the built-in ones; a file with the name of a built-in
    /// one takes its place.
    #[arg(long, env, hide_env_values = true)]
    pub resources_dir: Option<PathBuf>,

    /// The resources that are served, separated by commas; all of them unless it is given.
    #[arg(long, env, value_delimiter = ',', hide_env_values = true)]
    pub resources: Option<Vec<String>>,
}

impl ResourcesConfig {
    /// Reads the descriptions.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn load(&self) -> Result<Resources, RegistryError> {
        registry::load(self.resources_dir.as_deref(), self.resources.as_deref())
    }
}

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerConfig {
    /// Where to listen: `host:port`, `unix:/path` or `fd:N` (a socket handed over by a supervisor), separated by commas.
    #[arg(long, env, default_value = "127.0.0.1:8000", value_delimiter = ',', hide_env_values = true)]
    pub listen: Vec<ListenAddr>,

    /// Where /metrics is served, on its own so that it cannot become public by accident: `host:port`, or `off`.
    #[arg(long, env, default_value = "127.0.0.1:9464", hide_env_values = true)]
    pub metrics_listen: MetricsListen,

    /// Threads that handle requests (1 to 256).
    ///
    /// Half of the processors by default, because nginx and PostgreSQL share them: with two processors and everything on
    /// them one thread answers a third more lookups than two, which spend their time waking each other.
    #[arg(long, env, default_value_t = default_worker_threads(), value_parser = value_parser!(u16).range(1..=256), hide_env_values = true)]
    pub worker_threads: u16,

    /// Run missing migrations at the start; false leaves them to `pycrudapi migrate`.
    #[arg(long, env, default_value_t = true, action = ArgAction::Set, hide_env_values = true)]
    pub migrate: bool,

    /// Load the bundled data of each resource that has some into a database that never had it.
    #[arg(long, env, default_value_t = true, action = ArgAction::Set, hide_env_values = true)]
    pub seed: bool,

    /// Answer PUT, PATCH and DELETE without If-Match with 428.
    ///
    /// Then no client can overwrite a change that it has not seen; clients that know nothing of ETags cannot write at all.
    #[arg(long, env, default_value_t = false, action = ArgAction::Set, hide_env_values = true)]
    pub require_if_match: bool,

    /// How long the answer to a request with an Idempotency-Key is kept (1s to 720h): a number with s,
    /// m or h.
    ///
    /// A retry that comes later is carried out again; longer takes room in the database.
    #[arg(long, env, default_value = "24h", value_parser = span::<720>, hide_env_values = true)]
    pub idempotency_ttl: Duration,

    /// How long the entries of histories are kept (1s to 87600h): a number with s, m, h or d.
    ///
    /// Without it they are kept for good, and the histories grow with every change. A row can be read and brought back as it was
    /// only as far back as they reach.
    #[arg(long, env, value_parser = long_span::<87_600>, hide_env_values = true)]
    pub history_retention: Option<Duration>,

    /// Most answers that are kept of one principal (10 to 100000000); more requests with a key are answered with 429.
    ///
    /// Counted every ten seconds. Requests without credentials have no such bound: their keys are one space.
    #[arg(long, env, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(10..=100_000_000), hide_env_values = true)]
    pub idempotency_max_keys: u32,

    /// Host names under which requests are answered besides the local ones, separated by commas: `api.example.com`,
    /// `*.example.com`; or `*` for all.
    ///
    /// Local ones are IP addresses, this machine's name, names of one label, and whatever ends in localhost, local, internal,
    /// test, home.arpa, svc or svc.cluster.local. Other names are answered with 421; `*` lets any page read and write through a
    /// name of its own (DNS rebinding).
    #[arg(long, env, hide_env_values = true)]
    pub allowed_hosts: Option<Hosts>,

    /// Longest a request body may take to arrive, in milliseconds (100 to 600000); then the answer is 408.
    #[arg(long, env, default_value = "30000", value_parser = millis::<100, 600_000>, hide_env_values = true)]
    pub body_timeout_ms: Duration,

    /// Longest wait for a request's headers on a TCP connection, idle time included, in milliseconds (100 to 600000).
    ///
    /// Then the connection is closed. Unix sockets have no such limit: nginx keeps them open and guards them.
    #[arg(long, env, default_value = "60000", value_parser = millis::<100, 600_000>, hide_env_values = true)]
    pub header_timeout_ms: Duration,

    /// After a stop was asked for, connections are accepted and idle ones kept for so long at most, in milliseconds (0 to 30000),
    /// as a part of DRAIN_TIMEOUT_MS.
    ///
    /// Whoever balances over several servers must hear of the stop in this time: by a failed `/readyz`, or by `Connection: close`
    /// on each connection. nginx keeps none idle for longer than two seconds. It ends sooner when no connection from before is left.
    #[arg(long, env, default_value = "3000", value_parser = millis::<0, 30_000>, hide_env_values = true)]
    pub drain_grace_ms: Duration,

    /// File with the number of log lines that whoever relays the log has dropped, added to `log_lines_dropped_total`;
    /// supervisord sets its own.
    #[arg(long, env, hide_env_values = true)]
    pub log_dropped_file: Option<PathBuf>,

    /// What nginx takes as well.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Who may do what.
    #[command(flatten)]
    pub auth: AuthConfig,

    /// Room for requests.
    #[command(flatten)]
    pub room: RoomConfig,

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
    /// How long an answer is kept (1s to 24h): a number with s, m or h.
    ///
    /// An import ends it at once, so longer costs memory only; shorter asks PostgreSQL more often.
    #[arg(long, env, default_value = "1h", value_parser = span::<24>, hide_env_values = true)]
    pub air_quality_cache_ttl: Duration,

    /// Redis that keeps the answers for all replicas: `redis://[user]:password@host:port/db`, `rediss://` for TLS, or
    /// `unix:///path?db=0&pass=password`.
    ///
    /// Without it each process keeps its own. Redis may be away at the start and at any time.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub redis_url: Option<Secret>,

    /// File that holds the password of Redis, such as a mounted secret, instead of the password in REDIS_URL.
    #[arg(long, env, hide_env_values = true)]
    pub redis_password_file: Option<PathBuf>,

    /// Longest that a request may wait for Redis in all, in milliseconds (5 to 10000); then PostgreSQL answers.
    ///
    /// Shorter passes a healthy but busy Redis by; longer is how late the first answers are when Redis hangs.
    #[arg(long, env, default_value = "250", value_parser = millis::<5, 10_000>, hide_env_values = true)]
    pub redis_timeout_ms: Duration,
}

impl CacheConfig {
    /// Where answers are kept.
    ///
    /// # Errors
    /// When the address cannot be understood, or the password file cannot be read.
    pub fn options(&self) -> Result<CacheOptions, ConfigError> {
        let redis = self.redis_url.as_ref().map(|url| self.redis(url.reveal())).transpose()?;
        Ok(CacheOptions { ttl: self.air_quality_cache_ttl, redis, redis_timeout: self.redis_timeout_ms })
    }

    /// A client; it does not connect yet.
    fn redis(&self, url: &str) -> Result<redis::Client, ConfigError> {
        // The category says what is wrong and never repeats the value.
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
