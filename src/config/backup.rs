//! Settings of backups.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::bucket::BucketConfig;
use crate::backup::folder::Retention;
use crate::backup::seal::Key;
use crate::duration::long_span;

/// Encryption of backups.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct BackupConfig {
    /// File with the encryption key of backups: 64 hexadecimal digits, as `openssl rand -hex 32` prints them.
    ///
    /// Keep a copy of it elsewhere: without it, the backups cannot be read.
    #[arg(long = "key-file", env = "BACKUP_KEY_FILE", hide_env_values = true)]
    pub backup_key_file: Option<PathBuf>,
}

impl BackupConfig {
    /// The key, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn key(&self) -> anyhow::Result<Option<Key>> {
        self.backup_key_file.as_deref().map(Key::read).transpose()
    }
}

/// The location of backups, for checks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct BackupPlaceConfig {
    /// Directory with backups, or s3://bucket/prefix.
    #[arg(long = "backups", env = "BACKUP_DIR", hide_env_values = true)]
    pub backup_dir: Option<String>,
    /// Their encryption key.
    #[command(flatten)]
    pub backup: BackupConfig,
    /// Access to their bucket.
    #[command(flatten)]
    pub bucket: BucketConfig,
}

/// Retention of backups.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backup")]
pub struct RetentionConfig {
    /// Number of newest backups to keep (1 to 10000), with the WAL since the first of them; without this and BACKUP_KEEP_FOR,
    /// all are kept.
    #[arg(long = "keep", env = "BACKUP_KEEP", value_parser = value_parser!(u32).range(1..=10_000), hide_env_values = true)]
    pub backup_keep: Option<u32>,

    /// Keep backups younger than this (1s to 87600h): a number with s, m, h or d; with BACKUP_KEEP, a backup is kept if either
    /// setting keeps it.
    #[arg(long = "keep-for", env = "BACKUP_KEEP_FOR", value_parser = long_span::<87_600>, hide_env_values = true)]
    pub backup_keep_for: Option<Duration>,
}

impl RetentionConfig {
    /// The retention policy.
    pub fn retention(&self) -> Retention {
        Retention { count: self.backup_keep, age: self.backup_keep_for }
    }
}
