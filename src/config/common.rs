//! Settings that the server and nginx share: both must mean the same by them.

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
    /// Most bytes of a request body (1024 to 104857600); a larger one is 413.
    #[arg(long, env, default_value_t = 1_048_576, value_parser = value_parser!(u32).range(1024..=104_857_600), hide_env_values = true)]
    pub max_body_bytes: u32,

    /// Most bytes of a body that holds many rows (1024 to 1073741824); a larger one is 413.
    ///
    /// Such a body is streamed, so more costs time and room in PostgreSQL, not memory here.
    #[arg(long, env, default_value_t = 67_108_864, value_parser = value_parser!(u32).range(1024..=1_073_741_824), hide_env_values = true)]
    pub bulk_max_bytes: u32,

    /// Longest that such a body may take to arrive and to be stored, in milliseconds (1000 to 3600000); then the answer is
    /// 408, or 503 when it was PostgreSQL that took long.
    ///
    /// A slow client may hold one of two connections for as long. nginx waits as long for the answer.
    #[arg(long, env, default_value = "60000", value_parser = millis::<1000, 3_600_000>, hide_env_values = true)]
    pub bulk_timeout_ms: Duration,

    /// Origins whose pages may read answers and write in a browser (CORS), separated by commas: `https://app.example`; or `*` for
    /// all.
    ///
    /// Nobody by default. The API takes no cookies, so `*` shows no page more than anybody can read anyway.
    #[arg(long, env, hide_env_values = true)]
    pub cors_allow_origins: Option<Origins>,

    /// Whether credentials are looked at: off lets everybody do everything, on what their scopes say.
    ///
    /// `pycrudapi token create` makes the first token. Off is for one machine; never let others reach a service that is off.
    #[arg(long, env, value_enum, default_value_t = Auth::Off, hide_env_values = true)]
    pub auth: Auth,

    /// Longest that requests in flight may take after a stop was asked for, in milliseconds (0 to 30000).
    ///
    /// Keep it below the grace period of whoever stops the server, or it is killed in the middle.
    #[arg(long, env, default_value = "10000", value_parser = millis::<0, 30_000>, hide_env_values = true)]
    pub drain_timeout_ms: Duration,

    /// Process that starts this one and without which it stops, as on SIGTERM; supervisord sets its own.
    #[arg(long, env, hide_env_values = true, value_parser = process_id)]
    pub parent_pid: Option<Pid>,
}

/// nginx's port, which the health check asks as well.
#[derive(Debug, Clone, Copy, Args)]
pub struct HttpPort {
    /// nginx's port (1 to 65535), on every address of this machine.
    #[arg(long, env, default_value_t = 8080, value_parser = value_parser!(u16).range(1..), hide_env_values = true)]
    pub http_port: u16,
}
