//! Why settings were rejected: an error states the setting, the reason and the remedy, and never contains a secret.

use std::path::PathBuf;

use thiserror::Error;

use crate::db::conninfo::ConnInfoError;

/// Why the database settings were rejected.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The URL is invalid.
    #[error("DATABASE_URL {0}")]
    Url(ConnInfoError),
    /// The replica's URL is invalid.
    #[error("DATABASE_READ_URL {0}")]
    ReadUrl(ConnInfoError),
    /// The target URL of a restore is invalid.
    #[error("--into {0}")]
    Into(ConnInfoError),
    /// The separate settings are invalid.
    #[error("POSTGRES_HOST and related settings: {0}")]
    Parts(ConnInfoError),
    /// A file with a secret cannot be read.
    #[error("{setting} {} cannot be read: {reason}; mount the secret there or set {instead}", path.display())]
    SecretFile {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: std::io::Error,
        /// The alternative setting for the secret.
        instead: &'static str,
    },
    /// The address of Redis is invalid.
    #[error("REDIS_URL is not a valid Redis URL: {0}; example: redis://:password@redis.example:6379/0")]
    Redis(String),
}
