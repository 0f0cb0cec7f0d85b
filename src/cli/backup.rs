//! `pycrudapi backup`, `backups`, `restore` and `restore-drill`.
//!
//! The build without the embedded database makes and restores logical backups alone: its image has no programs of PostgreSQL,
//! which the physical ones are made and recovered with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[cfg(feature = "embedded")]
use anyhow::Context;
use anyhow::bail;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio_postgres::Client;

use super::TRANSFER_THREADS;
use super::database::{Use, expect_database, with_database};
use super::output::{say, table};
use crate::backup::folder::Folder;
#[cfg(feature = "embedded")]
use crate::backup::follow::Follower;
use crate::backup::logical;
#[cfg(feature = "embedded")]
use crate::backup::physical::Until;
use crate::backup::record::{Backup, Kind};
use crate::backup::runs::{self, Run, Task};
use crate::backup::seal::Key;
#[cfg(feature = "embedded")]
use crate::backup::{drill, physical, restored, wal};
use crate::config::{BackupConfig, DatabaseConfig, ResourcesConfig, RetentionConfig};
use crate::db::conninfo::ConnInfo;
#[cfg(feature = "embedded")]
use crate::db::embedded::{Options, Target};
use crate::db::migrate;
use crate::db::told::told;
use crate::resource::registry::Resources;
#[cfg(feature = "embedded")]
use crate::shutdown;

/// What was asked for where this build can make and read logical backups only.
#[cfg(not(feature = "embedded"))]
const NO_PROGRAMS: &str = "this build has no programs of PostgreSQL, which a physical backup takes; use --kind logical";

/// `backup`.
#[derive(Debug, Args)]
pub struct Make {
    /// The folder that backups are in; it is made when it is missing.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    to: PathBuf,
    /// Physical copies all files of the cluster, and can be brought back to any instant; logical copies the rows of the service's
    /// tables, and takes no more than the right to read them.
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    kind: Wanted,
    /// Receive WAL into the folder all the time, until SIGTERM or SIGINT, so that backups can be brought back to any instant;
    /// makes the first backup if there is none.
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    retention: RetentionConfig,
    #[command(flatten)]
    backup: BackupConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// Which kind of backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Physical where the server lets us, otherwise logical.
    Auto,
    Physical,
    Logical,
}

/// `backups`.
#[derive(Debug, Args)]
pub struct List {
    /// The folder that backups are in.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: PathBuf,
    /// Read every file again and compare it with what was written; the exit status is 1 when one is damaged.
    #[arg(long)]
    check: bool,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The folder that backups are in.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: PathBuf,
    /// The backup; the newest, or the one before --at, without.
    #[arg(long)]
    backup: Option<String>,
    /// The instant, such as 2026-11-26T22:45:01.5Z or with an offset: what was acknowledged before it by the database's clock is there, and
    /// nothing that was begun after it. Without it the backup's own instant with --backup, or the end of WAL.
    #[arg(long)]
    at: Option<Timestamp>,
    /// A new directory for DATA_DIR; or the URL of an empty database, for a logical backup.
    #[arg(long, env = "RESTORE_INTO", hide_env_values = true)]
    into: String,
    #[command(flatten)]
    key: BackupConfig,
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// `restore-drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// The folder that backups are in.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: PathBuf,
    /// The URL of an empty database that a logical backup is loaded into; without it a PostgreSQL of its own is started in the
    /// system's directory for temporary files.
    #[arg(long, env = "DRILL_INTO", hide_env_values = true)]
    into: Option<String>,
    #[command(flatten)]
    key: BackupConfig,
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

impl Make {
    /// Makes a backup, or follows.
    ///
    /// # Errors
    /// A chain of causes that ends in what to do.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.backup.key()?;
        let folder = Folder::create(&self.to)?;
        expect_database(&self.database)?;
        let usage = if self.follow { Use::Running } else { Use::Shared };
        with_database(&self.database, usage, TRANSFER_THREADS, |conninfo| async move {
            if self.follow {
                return self.follow(&conninfo, &folder, key.as_ref()).await;
            }
            self.once(&conninfo, &folder, key.as_ref()).await
        })
    }

    /// Makes one and removes what need not be kept; what became of it is written down.
    async fn once(&self, conninfo: &ConnInfo, folder: &Folder, key: Option<&Key>) -> anyhow::Result<()> {
        let started = Instant::now();
        let outcome = async {
            let lock = folder.lock()?;
            let backup = self.make(conninfo, folder, key, &lock).await?;
            let removed = folder.forget(self.retention.retention(), &lock)?;
            anyhow::Ok((backup, removed))
        }
        .await;
        record(conninfo, Task::Backup, started, &outcome, |(backup, _)| {
            (Some(backup.bytes()), format!("backup {}", backup.id))
        })
        .await;
        let (backup, removed) = outcome?;
        let kind: &str = backup.kind.into();
        say(&format!("backup {}, {kind}, {}, checked", backup.id, size(backup.bytes())));
        for id in removed {
            say(&format!("removed backup {id}"));
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
    async fn follow(&self, conninfo: &ConnInfo, folder: &Folder, key: Option<&Key>) -> anyhow::Result<()> {
        if self.kind == Wanted::Logical {
            bail!("--follow receives WAL, which a logical backup has no use for");
        }
        let server = administrator(conninfo);
        let following = async {
            let mut follower = Follower::start(&server, &self.database.embedded_options(), folder, key).await?;
            // WAL alone brings nothing back; and the backup comes behind its beginning, so that nothing is missing between the two.
            let mut needs_backup = follower.needs_backup(folder)?;
            let mut is_first = true;
            follower
                .run(async |at| {
                    if is_first {
                        is_first = false;
                        if std::mem::take(&mut needs_backup) {
                            self.once(conninfo, folder, key).await?;
                        }
                        say(&format!("following; everything up to {at} is in {}", folder.path().display()));
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

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_async, reason = "the other build's awaits")]
    async fn follow(&self, _: &ConnInfo, _: &Folder, _: Option<&Key>) -> anyhow::Result<()> {
        bail!(NO_PROGRAMS)
    }
}

impl List {
    /// Lists them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let folder = Folder::open(&self.from)?;
        let mut rows =
            vec![["id", "kind", "size", "postgres", "encrypted", "verified", "restorable"].map(str::to_owned)];
        let mut is_whole = true;
        for backup in folder.list()? {
            let verified = if self.check { backup.check(&folder.directory(&backup)) } else { Ok(()) };
            let when = match (&verified, self.check) {
                (Ok(()), true) => "now",
                (Ok(()), false) => "when written",
                (Err(error), _) => {
                    is_whole = false;
                    say(&told(error.as_ref()));
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
                reach(&folder, &backup)?,
            ]);
        }
        table(&rows);
        Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The instants that a backup can be brought back to, in words.
fn reach(folder: &Folder, backup: &Backup) -> anyhow::Result<String> {
    let first = backup.state.instant()?;
    #[cfg(feature = "embedded")]
    {
        let last = wal::reach(folder, backup)?;
        if last > first {
            return Ok(format!("{first} … {last}"));
        }
    }
    #[cfg(not(feature = "embedded"))]
    let _ = folder;
    Ok(first.to_string())
}

impl Restore {
    /// Brings a backup back.
    ///
    /// # Errors
    /// A chain of causes that ends in what to do; what is half restored is removed.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.key.key()?;
        let folder = Folder::open(&self.from)?;
        let backup = folder.choose(self.backup.as_deref(), self.at)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(TRANSFER_THREADS).enable_all().build()?;
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| self.into.starts_with(scheme))
            || self.into.contains("host=");
        match (backup.kind, is_url) {
            (Kind::Logical, true) => {
                if self.at.is_some() {
                    bail!("a logical backup is of one instant, {}; leave --at out", backup.state.at);
                }
                let server = self.database.at(&self.into)?;
                let resources = self.resources.load()?;
                runtime.block_on(logical::restore(&server, &folder, &backup, key.as_ref(), &resources))?;
                say(&format!("restored backup {} as of {}", backup.id, backup.state.at));
            }
            (Kind::Physical, false) => self.physical(&runtime, &folder, &backup, key.as_ref())?,
            (Kind::Logical, false) => self.logical_into_directory(&runtime, &folder, &backup, key.as_ref())?,
            (Kind::Physical, true) => bail!(
                "backup {} is physical and becomes a directory; name a new one with --into, or a logical backup with --backup",
                backup.id
            ),
        }
        Ok(ExitCode::SUCCESS)
    }

    #[cfg(feature = "embedded")]
    fn options(&self) -> Options {
        Options { data_dir: PathBuf::from(&self.into), ..self.database.embedded_options() }
    }

    #[cfg(feature = "embedded")]
    fn physical(
        &self,
        runtime: &tokio::runtime::Runtime,
        folder: &Folder,
        backup: &Backup,
        key: Option<&Key>,
    ) -> anyhow::Result<()> {
        let until = match (self.at, &self.backup) {
            (Some(at), _) => Until::Instant(at),
            (None, Some(_)) => Until::State,
            (None, None) => Until::End,
        };
        let target = Target::prepare(&self.options(), backup.major)?;
        let (recovered, reached) = runtime.block_on(async {
            let (recovered, reached) = physical::restore(folder, backup, key, &target, until).await?;
            let mut config = recovered.config();
            config.dbname(&backup.database);
            let client = migrate::connect(&ConnInfo::from_config(config)?).await?;
            restored::move_versions(&client).await?;
            anyhow::Ok((recovered, reached))
        })?;
        let place = target.keep(recovered)?;
        let reached = reached.map_or_else(|| backup.state.at.clone(), |at| at.to_string());
        say(&format!("restored backup {}; the last commit in it is of {reached}", backup.id));
        say(&format!("serve it: DATA_DIR={} make up", place.display()));
        if backup.database != "postgres" {
            say(&format!("its tables are in the database {}, not in postgres", backup.database));
        }
        Ok(())
    }

    #[cfg(feature = "embedded")]
    fn logical_into_directory(
        &self,
        runtime: &tokio::runtime::Runtime,
        folder: &Folder,
        backup: &Backup,
        key: Option<&Key>,
    ) -> anyhow::Result<()> {
        let resources = self.resources.load()?;
        runtime.block_on(drill::logical_into(&self.options(), folder, backup, key, &resources))?;
        say(&format!("restored backup {} as of {}", backup.id, backup.state.at));
        say(&format!("serve it: DATA_DIR={} make up", self.into));
        Ok(())
    }

    #[cfg(not(feature = "embedded"))]
    fn physical(&self, _: &tokio::runtime::Runtime, _: &Folder, _: &Backup, _: Option<&Key>) -> anyhow::Result<()> {
        bail!(NO_PROGRAMS)
    }

    #[cfg(not(feature = "embedded"))]
    fn logical_into_directory(
        &self,
        _: &tokio::runtime::Runtime,
        _: &Folder,
        _: &Backup,
        _: Option<&Key>,
    ) -> anyhow::Result<()> {
        bail!("this build has no embedded database; name an empty one with --into postgres://…")
    }
}

impl Drill {
    /// Drills.
    ///
    /// # Errors
    /// When the backup cannot be brought back, or is not what the database was.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.key.key()?;
        expect_database(&self.database)?;
        with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            let started = Instant::now();
            let outcome = async {
                let folder = Folder::open(&self.from)?;
                let backup = folder.choose(None, None)?;
                self.drill(&folder, &backup, key.as_ref(), self.resources.load()?).await?;
                anyhow::Ok(backup)
            }
            .await;
            record(&conninfo, Task::RestoreDrill, started, &outcome, |backup| {
                (Some(backup.bytes()), format!("backup {}", backup.id))
            })
            .await;
            let backup = outcome?;
            let rows: i64 = backup.state.tables.iter().map(|table| table.rows).sum();
            let tables = backup.state.tables.len();
            say(&format!(
                "backup {} is what the database was at {}: {rows} rows in {tables} tables",
                backup.id, backup.state.at
            ));
            Ok(())
        })
    }

    async fn drill(
        &self,
        folder: &Folder,
        backup: &Backup,
        key: Option<&Key>,
        resources: Resources,
    ) -> anyhow::Result<()> {
        if let (Kind::Logical, Some(into)) = (backup.kind, &self.into) {
            return logical::restore(&self.database.at(into)?, folder, backup, key, &resources).await;
        }
        #[cfg(feature = "embedded")]
        {
            let options = self.database.embedded_options();
            match backup.kind {
                Kind::Physical => drill::physical(folder, backup, key, &options).await,
                Kind::Logical => drill::logical(folder, backup, key, &options, &resources).await,
            }
        }
        #[cfg(not(feature = "embedded"))]
        match backup.kind {
            Kind::Physical => bail!(NO_PROGRAMS),
            Kind::Logical => bail!("this build has no embedded database; name an empty one with --into (DRILL_INTO)"),
        }
    }
}

/// Whoever owns the tables, and may copy the cluster if anybody may.
fn administrator(conninfo: &ConnInfo) -> ConnInfo {
    conninfo.as_migrator().unwrap_or_else(|| conninfo.clone())
}

/// Writes down what became of a run; that this cannot be is no reason to fail.
async fn record<T>(
    conninfo: &ConnInfo,
    task: Task,
    started: Instant,
    outcome: &anyhow::Result<T>,
    told_of: impl Fn(&T) -> (Option<u64>, String),
) {
    let (size_bytes, message) = match outcome {
        Ok(value) => told_of(value),
        Err(error) => (None, told(error.as_ref())),
    };
    let run = Run { task, duration: started.elapsed(), succeeded: outcome.is_ok(), size_bytes, message };
    let written = async {
        let client: Client = migrate::connect(&administrator(conninfo)).await?;
        anyhow::Ok(runs::record(&client, &run).await?)
    };
    if let Err(error) = written.await {
        tracing::warn!(error = format!("{error:#}"), "cannot write into maintenance_runs what became of this run");
    }
}

/// A length as people read it.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1024)),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}
