//! `pycrudapi backup` and `backups`.
//!
//! The build without the embedded database makes and restores only logical backups: its image does not have PostgreSQL's
//! programs, which physical backups require.

use std::path::Path;
use std::process::ExitCode;
#[cfg(feature = "embedded")]
use std::time::Duration;
use std::time::Instant;

#[cfg(feature = "embedded")]
use anyhow::Context;
use anyhow::bail;
use clap::{Args, ValueEnum};
#[cfg(feature = "embedded")]
use tokio::time::timeout;
use tokio_postgres::Client;

use super::TRANSFER_THREADS;
use super::database::{Use, expect_database, with_database};
use super::output::{print_line, print_table};
#[cfg(feature = "embedded")]
use crate::backup::archive::Archiver;
use crate::backup::bucket::Bucket;
use crate::backup::disk::{explain_disk_full, size};
use crate::backup::folder::Folder;
#[cfg(feature = "embedded")]
use crate::backup::follow::Follower;
use crate::backup::logical;
#[cfg(feature = "embedded")]
use crate::backup::physical;
use crate::backup::record::Backup;
use crate::backup::runs::{self, Run, Task};
use crate::backup::seal::Key;
use crate::config::{BackupConfig, BucketConfig, DatabaseConfig, RetentionConfig};
use crate::db::conninfo::ConnInfo;
use crate::db::error_chain::error_chain;
use crate::db::migrate;
#[cfg(feature = "embedded")]
use crate::shutdown;

/// The error for physical backups in a build that supports only logical ones.
#[cfg(not(feature = "embedded"))]
pub const NO_PROGRAMS: &str =
    "this build does not have PostgreSQL's programs, which a physical backup requires; use --kind logical";

/// Longest time for storing the last WAL in a bucket after SIGTERM or SIGINT.
#[cfg(feature = "embedded")]
const FINISH: Duration = Duration::from_secs(5);

/// `backup`.
#[derive(Debug, Args)]
pub struct Make {
    /// The folder of the backups, which is created when it is missing; or a prefix in a bucket, s3://bucket/prefix, which needs
    /// room for one backup in TMPDIR.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    to: String,
    /// Physical copies all files of the cluster, and can be restored to any instant; logical copies the rows of the service's
    /// tables, and requires only the privilege to read them.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    kind: Wanted,
    /// Receive WAL continuously, until SIGTERM or SIGINT, so that backups can be restored to any instant; makes the first
    /// backup if there is none. In a bucket WAL is stored about 10 s after it was written.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    retention: RetentionConfig,
    #[command(flatten)]
    backup: BackupConfig,
    #[command(flatten)]
    bucket: BucketConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// Kind of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Physical where the server allows it, otherwise logical.
    Auto,
    Physical,
    Logical,
}

/// `backups`.
#[derive(Debug, Args)]
pub struct List {
    /// The folder of the backups, or s3://bucket/prefix.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: String,
    /// Read every file and compare it with what was written; the exit status is 1 when one is damaged.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    bucket: BucketConfig,
}

impl Make {
    /// Makes a backup, or receives WAL continuously.
    ///
    /// # Errors
    /// With the cause and the remedy.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.backup.key()?;
        let bucket = self.bucket.bucket(&self.to)?;
        let folder = match &bucket {
            Some(bucket) => bucket.stage()?,
            None => Folder::create(Path::new(&self.to))?,
        };
        expect_database(&self.database)?;
        let usage = if self.follow { Use::Running } else { Use::Shared };
        with_database(&self.database, usage, TRANSFER_THREADS, |conninfo| async move {
            if self.follow {
                return self.follow(&conninfo, &folder, bucket.as_ref(), key.as_ref()).await;
            }
            self.once(&conninfo, &folder, bucket.as_ref(), key.as_ref()).await
        })
    }

    /// Makes a backup, applies retention, and records the outcome.
    async fn once(
        &self,
        conninfo: &ConnInfo,
        folder: &Folder,
        bucket: Option<&Bucket>,
        key: Option<&Key>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let retention = self.retention.retention();
        let outcome = async {
            let lock = folder.lock()?;
            let Some(bucket) = bucket else {
                let backup = self.make(conninfo, folder, key, &lock).await?;
                return anyhow::Ok((backup, folder.forget(retention, &lock)?));
            };
            // Before the database is read, to detect an unusable bucket early and to upload what an interrupted run has left.
            bucket.list().await?;
            bucket.take(folder, &lock).await?;
            let backup = self.make(conninfo, folder, key, &lock).await?;
            bucket.take(folder, &lock).await?;
            Ok((backup, bucket.forget(retention).await?))
        }
        .await
        // Errors of the folder's disk have its path already; a full disk without one is the server's.
        .map_err(|error| explain_disk_full(error, None));
        record(conninfo, Task::Backup, started, &outcome, |(backup, _)| {
            (Some(backup.bytes()), format!("backup {}", backup.id))
        })
        .await;
        let (backup, removed) = outcome?;
        let kind: &str = backup.kind.into();
        print_line(&format!("backup {}, {kind}, {}, checked", backup.id, size(backup.bytes())));
        for id in removed {
            print_line(&format!("removed backup {id}"));
        }
        Ok(())
    }

    #[cfg(feature = "embedded")]
    async fn make(
        &self,
        conninfo: &ConnInfo,
        folder: &Folder,
        key: Option<&Key>,
        lock: &crate::backup::folder::Lock,
    ) -> anyhow::Result<Backup> {
        let server = administrator(conninfo);
        let is_physical = match self.kind {
            Wanted::Physical => true,
            Wanted::Logical => false,
            Wanted::Auto => {
                let client = migrate::connect(&server).await.context("cannot connect to the database")?;
                let obstacle = physical::obstacle(&client).await.context("cannot read the role")?;
                if let Some(obstacle) = &obstacle {
                    tracing::warn!(reason = obstacle, "making a logical backup");
                }
                obstacle.is_none()
            }
        };
        if is_physical {
            physical::make(&server, &self.database.embedded_options(), folder, key, lock).await
        } else {
            logical::make(&server, folder, key, lock).await
        }
    }

    #[cfg(not(feature = "embedded"))]
    async fn make(
        &self,
        conninfo: &ConnInfo,
        folder: &Folder,
        key: Option<&Key>,
        lock: &crate::backup::folder::Lock,
    ) -> anyhow::Result<Backup> {
        if self.kind == Wanted::Physical {
            bail!(NO_PROGRAMS);
        }
        logical::make(&administrator(conninfo), folder, key, lock).await
    }

    #[cfg(feature = "embedded")]
    async fn follow(
        &self,
        conninfo: &ConnInfo,
        folder: &Folder,
        bucket: Option<&Bucket>,
        key: Option<&Key>,
    ) -> anyhow::Result<()> {
        if self.kind == Wanted::Logical {
            bail!("--follow receives WAL, which logical backups do not use");
        }
        if let Some(bucket) = bucket {
            return self.archive(conninfo, folder, bucket, key).await;
        }
        let server = administrator(conninfo);
        let following = async {
            let mut follower = Follower::start(&server, &self.database.embedded_options(), folder, key).await?;
            // WAL is of no use without a backup, which is made after receiving has begun so that no WAL is missing between the
            // two.
            let mut needs_backup = follower.needs_backup(folder)?;
            let mut is_first = true;
            follower
                .run(async |at| {
                    if is_first {
                        is_first = false;
                        if std::mem::take(&mut needs_backup) {
                            self.once(conninfo, folder, None, key).await?;
                        }
                        print_line(&format!("following; everything up to {at} is in {}", folder.path().display()));
                    }
                    Ok(())
                })
                .await
        };
        tokio::select! {
            outcome = following => outcome,
            signal = shutdown::signalled() => {
                tracing::info!(signal = signal.context("cannot handle signals")?, "stopping");
                Ok(())
            }
        }
    }

    #[cfg(feature = "embedded")]
    async fn archive(
        &self,
        conninfo: &ConnInfo,
        stage: &Folder,
        bucket: &Bucket,
        key: Option<&Key>,
    ) -> anyhow::Result<()> {
        let server = administrator(conninfo);
        let mut archiver = Archiver::start(&server, &self.database.embedded_options(), bucket, key).await?;
        // The slot exists already, so that no WAL is missing after the backup.
        if archiver.needs_backup {
            self.once(conninfo, stage, Some(bucket), key).await?;
        }
        let mut is_first = true;
        let following = archiver.run(|at| {
            if std::mem::take(&mut is_first) {
                print_line(&format!("following; everything up to {at} is in {}", bucket.name()));
            }
        });
        tokio::select! {
            outcome = following => outcome,
            signal = shutdown::signalled() => {
                tracing::info!(signal = signal.context("cannot handle signals")?, "stopping");
                // The server keeps what is not stored within that time.
                timeout(FINISH, archiver.finish()).await.unwrap_or(Ok(()))
            }
        }
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_async, reason = "the other build's awaits")]
    async fn follow(&self, _: &ConnInfo, _: &Folder, _: Option<&Bucket>, _: Option<&Key>) -> anyhow::Result<()> {
        bail!(NO_PROGRAMS)
    }
}

impl List {
    /// Lists the backups.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let repository = self.bucket.repository(&self.from)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut rows =
            vec![["id", "kind", "size", "postgres", "encrypted", "verified", "restorable"].map(str::to_owned)];
        let mut is_whole = true;
        let backups = runtime.block_on(repository.list())?;
        let reaches = runtime.block_on(repository.reaches(&backups))?;
        for (backup, reach) in backups.into_iter().zip(reaches) {
            let verified = if self.check { runtime.block_on(repository.check(&backup)) } else { Ok(()) };
            let when = match (&verified, self.check) {
                (Ok(()), true) => "now",
                (Ok(()), false) => "when written",
                (Err(error), _) => {
                    is_whole = false;
                    print_line(&error_chain(error.as_ref()));
                    "damaged"
                }
            };
            let kind: &str = backup.kind.into();
            rows.push([
                backup.id.clone(),
                kind.to_owned(),
                size(backup.bytes()),
                backup.postgres.clone(),
                backup.key.clone().map_or("no".to_owned(), |mark| format!("key {mark}")),
                when.to_owned(),
                match reach {
                    (first, last) if first == last => first.to_string(),
                    (first, last) => format!("{first} … {last}"),
                },
            ]);
        }
        print_table(&rows);
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The role that owns the tables, and the one most likely to be allowed to copy the cluster.
fn administrator(conninfo: &ConnInfo) -> ConnInfo {
    conninfo.as_migrator().unwrap_or_else(|| conninfo.clone())
}

/// Records the outcome of a run in `maintenance_runs`; a failure to do so is only logged.
pub async fn record<T>(
    conninfo: &ConnInfo,
    task: Task,
    started: Instant,
    outcome: &anyhow::Result<T>,
    describe: impl Fn(&T) -> (Option<u64>, String),
) {
    let (size_bytes, message) = match outcome {
        Ok(value) => describe(value),
        Err(error) => (None, error_chain(error.as_ref())),
    };
    let run = Run { task, duration: started.elapsed(), succeeded: outcome.is_ok(), size_bytes, message };
    let written = async {
        let client: Client = migrate::connect(&administrator(conninfo)).await?;
        anyhow::Ok(runs::record(&client, &run).await?)
    };
    if let Err(error) = written.await {
        tracing::warn!(error = format!("{error:#}"), "cannot record the outcome of this run in maintenance_runs");
    }
}
