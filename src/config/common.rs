//! Settings that the server and nginx share, so that both use the same values.

use std::time::Duration;

use clap::{Args, value_parser};
use rustix::process::Pid;

use super::auth::Auth;
use super::values::{millis, process_id};
use crate::http::cors::Origins;

/// Settings of the server and of nginx in front of it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server and nginx")]
pub struct CommonConfig {
    /// Maximum size of a request body in bytes (1024 to 104857600); a larger one gets 413.
    #[arg(long, env, default_value_t = 1_048_576, value_parser = value_parser!(u32).range(1024..=104_857_600), hide_env_values = true)]
    pub max_body_bytes: u32,

    /// Maximum size of a body with many rows in bytes (1024 to 1073741824); a larger one gets 413.
    ///
    /// Such a body is streamed, so a larger limit costs time and space in PostgreSQL, but no memory in the server.
    #[arg(long, env, default_value_t = 67_108_864, value_parser = value_parser!(u32).range(1024..=1_073_741_824), hide_env_values = true)]
    pub bulk_max_bytes: u32,

    /// Longest time for such a body to arrive and be stored, in milliseconds (1000 to 3600000); then the answer is 408, or 503
    /// if PostgreSQL took too long.
    ///
    /// A slow client can hold one of two connections for this long. nginx waits as long for the answer.
    #[arg(long, env, default_value = "60000", value_parser = millis::<1000, 3_600_000>, hide_env_values = true)]
    pub bulk_timeout_ms: Duration,

    /// Origins whose pages may read responses and write in a browser (CORS), separated by commas: `https://app.example`; or `*`
    /// for all.
    ///
    /// None by default. The API does not use cookies, so `*` lets a page read only what anyone can read anyway.
    #[arg(long, env, hide_env_values = true)]
    pub cors_allow_origins: Option<Origins>,

    /// Whether credentials are checked: off permits every request, on permits what the scopes of a request allow.
    ///
    /// `pycrudapi token create` creates the first token. Off is for a single machine only: never expose such a service to
    /// others.
    #[arg(long, env, value_enum, default_value_t = Auth::Off, hide_env_values = true)]
    pub auth: Auth,

    /// Longest time for requests in flight to finish after a stop was requested, in milliseconds (0 to 30000).
    ///
    /// It must be shorter than the grace period of the process manager or orchestrator, which otherwise kills the server while
    /// requests are in flight.
    #[arg(long, env, default_value = "10000", value_parser = millis::<0, 30_000>, hide_env_values = true)]
    pub drain_timeout_ms: Duration,

    /// Parent process: when it exits, this process stops as on SIGTERM; set by supervisord.
    #[arg(long, env, hide_env_values = true, value_parser = process_id)]
    pub parent_pid: Option<Pid>,
}

/// nginx's port, which the health check also uses.
#[derive(Debug, Clone, Copy, Args)]
pub struct HttpPort {
    /// nginx's port (1 to 65535), on every address of this machine.
    #[arg(long, env, default_value_t = 8080, value_parser = value_parser!(u16).range(1..), hide_env_values = true)]
    pub http_port: u16,
}
