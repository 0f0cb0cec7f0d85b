//! Why the service cannot start or continue.

use thiserror::Error;

use crate::config::{ConfigError, WrongSetting};
use crate::db::copy::CopyError;
use crate::db::migrate::MigrateError;

/// Why the service cannot start or continue.
#[derive(Debug, Error)]
pub enum AppError {
    /// The database settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another setting is invalid.
    #[error(transparent)]
    Setting(#[from] WrongSetting),
    /// The thread for the delivery of traces cannot be started.
    #[error("cannot deliver traces")]
    Traces(#[source] std::io::Error),
    /// PostgreSQL responds and rejects the login permanently.
    #[error(
        "postgres rejects this user, password or database name; check DATABASE_URL or the POSTGRES_ settings, and MIGRATE_USER"
    )]
    Refused(#[source] tokio_postgres::Error),
    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
    /// The seed cannot be loaded.
    #[error("cannot seed the database")]
    Seed(#[source] CopyError),
}
