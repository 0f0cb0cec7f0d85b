//! Why the service cannot go on.

use thiserror::Error;

use crate::config::{ConfigError, WrongSetting};
use crate::db::copy::CopyError;
use crate::db::migrate::MigrateError;

/// Why the service cannot go on.
#[derive(Debug, Error)]
pub enum AppError {
    /// A setting is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting does not do.
    #[error(transparent)]
    Setting(#[from] WrongSetting),
    /// There is no thread for the delivery of traces.
    #[error("cannot deliver traces")]
    Traces(#[source] std::io::Error),
    /// PostgreSQL answers, and says that it never will let us in.
    #[error(
        "postgres refuses this user, password or database name; check DATABASE_URL or the POSTGRES_ settings, and MIGRATE_USER"
    )]
    Refused(#[source] tokio_postgres::Error),
    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
    /// The seed cannot be loaded.
    #[error("cannot seed the database")]
    Seed(#[source] CopyError),
}
