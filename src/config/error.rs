//! Why settings were refused: a fault names the setting, the reason and what to do, and never repeats a secret.

use std::path::PathBuf;

use thiserror::Error;

use crate::db::conninfo::ConnInfoError;

/// Why the database settings were refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The URL is at fault.
    #[error("DATABASE_URL {0}")]
    Url(ConnInfoError),
    /// The URL of the replica is at fault.
    #[error("DATABASE_READ_URL {0}")]
    ReadUrl(ConnInfoError),
    /// The URL of a restore is at fault.
    #[error("--into {0}")]
    Into(ConnInfoError),
    /// The parts are at fault.
    #[error("POSTGRES_HOST and its companions: {0}")]
    Parts(ConnInfoError),
    /// A file that holds a secret is at fault.
    #[error("{setting} {} cannot be read: {reason}; mount the secret there or set {instead}", path.display())]
    SecretFile {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
        /// Where the secret may stand.
        instead: &'static str,
    },
    /// The address of Redis is at fault.
    #[error("REDIS_URL is not the address of a Redis: {0}; example: redis://:password@redis.example:6379/0")]
    Redis(String),
}
