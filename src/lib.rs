//! pycrudapi: tables over HTTP, on PostgreSQL.
//!
//! Dependencies point one way:
//!
//! ```text
//! main -> cli -> config -> app -> server -> <resource>/routes -> <resource>/store -> db
//! ```
//!
//! - [`cli`] has the subcommands, [`config`] every setting, and [`app`] builds and starts the service;
//! - [`server`] joins the resources, listens, logs and drains; [`http`] is shared by all routes;
//! - [`ops`] is health and metrics; [`docs`] the OpenAPI document and its pages, [`pages`] the web interface;
//! - [`resource`] is the engine of described resources; [`air_quality`] and [`steps`] are special-purpose resources, each
//!   with `mod`, `routes`, `model` and `store`;
//! - [`nginx`] checks and renders the configuration of the nginx in front, and becomes it;
//! - [`idempotency`] executes a request once, however often it is sent;
//! - [`backup`] creates and restores backups;
//! - [`csv`] reads the files that spreadsheets and other programs write;
//! - [`doctor`] diagnoses everything that the service depends on;
//! - [`trace`] records spans of requests and queues them for delivery;
//! - [`db`] is PostgreSQL without HTTP; [`telemetry`], [`log_output`], [`shutdown`] and [`staggered`] are process-wide;
//! - [`masked`] and [`shell`] keep secrets out of messages, and quote paths in the commands that they show; [`short_file`]
//!   bounds the memory for unexpectedly long files.

pub mod air_quality;
pub mod app;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod config;
pub mod csv;
pub mod db;
pub mod docs;
pub mod doctor;
pub mod duration;
pub mod hexadecimal;
pub mod http;
pub mod idempotency;
pub mod identity;
pub mod log_output;
pub mod masked;
#[cfg(target_os = "linux")]
pub mod nginx;
pub mod ops;
pub mod pages;
pub mod resource;
pub mod server;
pub mod shell;
pub mod short_file;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod staggered;
pub mod steps;
pub mod telemetry;
pub mod tokens;
pub mod trace;
