//! Settings of backups.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::bucket::BucketConfig;
use crate::backup::folder::Retention;
use crate::backup::seal::Key;
use crate::duration::long_span;

/// How backups are encrypted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct BackupConfig {
    /// File with the key that backups are encrypted with: 64 hexadecimal digits, as `openssl rand -hex 32` writes them.
    ///
    /// Keep a copy of it elsewhere: without it nobody reads the backups again.
    #[arg(long = "key-file", env = "BACKUP_KEY_FILE", hide_env_values = true)]
    pub backup_key_file: Option<PathBuf>,
}

impl BackupConfig {
    /// The key, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn key(&self) -> anyhow::Result<Option<Key>> {
        self.backup_key_file.as_deref().map(Key::read).transpose()
    }
}

/// Where backups are, for whoever looks at them beside everything else.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct BackupPlaceConfig {
    /// The folder that backups are in, or s3://bucket/prefix.
    #[arg(long = "backups", env = "BACKUP_DIR", hide_env_values = true)]
    pub backup_dir: Option<String>,
    /// Their key.
    #[command(flatten)]
    pub backup: BackupConfig,
    /// The key to their bucket.
    #[command(flatten)]
    pub bucket: BucketConfig,
}

/// How long backups are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct RetentionConfig {
    /// Keep so many of the newest backups (1 to 10000), and WAL back to the first of them; all of them without this and
    /// BACKUP_KEEP_FOR.
    #[arg(long = "keep", env = "BACKUP_KEEP", value_parser = value_parser!(u32).range(1..=10_000), hide_env_values = true)]
    pub backup_keep: Option<u32>,

    /// Keep backups that are younger (1s to 87600h): a number with s, m, h or d; with BACKUP_KEEP a backup is kept for
    /// either reason.
    #[arg(long = "keep-for", env = "BACKUP_KEEP_FOR", value_parser = long_span::<87_600>, hide_env_values = true)]
    pub backup_keep_for: Option<Duration>,
}

impl RetentionConfig {
    /// What is kept.
    pub fn retention(&self) -> Retention {
        Retention { count: self.backup_keep, age: self.backup_keep_for }
    }
}
