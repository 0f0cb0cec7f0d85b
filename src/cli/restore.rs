//! `pycrudapi restore` and `restore-drill`.

use std::path::Path;
#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;

use super::TRANSFER_THREADS;
#[cfg(not(feature = "embedded"))]
use super::backup::NO_PROGRAMS;
use super::backup::record;
use super::database::{Use, expect_database, with_database};
use super::output::print_line;
use crate::backup::disk::explain_disk_full;
use crate::backup::folder::Folder;
use crate::backup::logical;
#[cfg(feature = "embedded")]
use crate::backup::physical::Until;
use crate::backup::record::{Backup, Kind};
use crate::backup::runs::Task;
use crate::backup::seal::Key;
#[cfg(feature = "embedded")]
use crate::backup::{drill, physical, restored};
use crate::config::{BackupConfig, BucketConfig, DatabaseConfig, ResourcesConfig};
#[cfg(feature = "embedded")]
use crate::db::conninfo::ConnInfo;
use crate::db::conninfo::is_conninfo;
#[cfg(feature = "embedded")]
use crate::db::embedded::{Options, Target};
#[cfg(feature = "embedded")]
use crate::db::migrate;
use crate::masked::masked;
use crate::resource::registry::Resources;
use crate::resource::time::{Unzoned, read_date_time};
#[cfg(feature = "embedded")]
use crate::shell::quoted;

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The folder of the backups; or s3://bucket/prefix, from which the backup is downloaded to TMPDIR first.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: String,
    /// The id of the backup; by default the newest, or the newest before --at.
    #[arg(long, env = "RESTORE_BACKUP", hide_env_values = true)]
    backup: Option<String>,
    /// The instant, in a form that the API accepts, such as 2026-11-26T22:45:01.5Z or 2026-11-26T23:45:01[Europe/Warsaw]: every
    /// write acknowledged before it by the database's clock is restored, and none begun after it. The default is the backup's
    /// own instant with --backup, and otherwise the end of WAL.
    #[arg(long, value_parser = instant)]
    at: Option<Timestamp>,
    /// A new directory for DATA_DIR; or the URL of an empty database, for a logical backup.
    #[arg(long, env = "RESTORE_INTO", hide_env_values = true)]
    into: String,
    #[command(flatten)]
    key: BackupConfig,
    #[command(flatten)]
    bucket: BucketConfig,
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// `restore-drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// The folder of the backups; or s3://bucket/prefix, from which the backup is downloaded to TMPDIR first.
    #[arg(long, env = "BACKUP_DIR", hide_env_values = true)]
    from: String,
    /// The URL of an empty database that a logical backup is loaded into; by default a temporary PostgreSQL is started in
    /// TMPDIR.
    #[arg(long, env = "DRILL_INTO", hide_env_values = true)]
    into: Option<String>,
    #[command(flatten)]
    key: BackupConfig,
    #[command(flatten)]
    bucket: BucketConfig,
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

/// An instant in any form that the API accepts.
fn instant(text: &str) -> Result<Timestamp, String> {
    const RULE: &str = "expected an instant such as 2026-11-26T22:45:01.5Z, 2026-11-26T23:45:01+01:00 or \
        2026-11-26T23:45:01[Europe/Warsaw]";
    read_date_time(text, Unzoned::Refused).map_err(|fault| fault.of(RULE))
}

/// Whether --into is the address of a database; any other address is refused, because it is not meant as a directory.
fn is_database(into: &str) -> anyhow::Result<bool> {
    let is_database = is_conninfo(into);
    if !is_database && into.contains("://") {
        bail!(
            "--into {}: expected a directory, or a database such as postgres://user:password@db.example:5432/name",
            masked(into)
        );
    }
    Ok(is_database)
}

impl Restore {
    /// Restores a backup.
    ///
    /// # Errors
    /// With the cause and the remedy; an incomplete restore is removed.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.key.key()?;
        let repository = self.bucket.repository(&self.from)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(TRANSFER_THREADS).enable_all().build()?;
        let is_database = is_database(&self.into)?;
        let key = key.as_ref();
        let fetched =
            runtime.block_on(repository.fetch(self.backup.as_deref(), self.at, key, self.backup.is_none()))?;
        let restored = self.restore(&runtime, &fetched.folder, &fetched.backup, (key, is_database));
        let disk = (!is_database).then(|| Path::new(&self.into));
        restored.map_err(|error| explain_disk_full(error, disk))?;
        Ok(ExitCode::SUCCESS)
    }

    fn restore(
        &self,
        runtime: &tokio::runtime::Runtime,
        folder: &Folder,
        backup: &Backup,
        (key, is_database): (Option<&Key>, bool),
    ) -> anyhow::Result<()> {
        match (backup.kind, is_database) {
            (Kind::Logical, true) => {
                let server = self.database.at(&self.into)?;
                let resources = self.resources.load()?;
                runtime.block_on(logical::restore(&server, folder, backup, key, &resources))?;
                print_line(&format!("restored backup {} as of {}", backup.id, backup.state.at));
            }
            (Kind::Physical, false) => self.physical(runtime, folder, backup, key)?,
            (Kind::Logical, false) => self.logical_into_directory(runtime, folder, backup, key)?,
            (Kind::Physical, true) => bail!(
                "backup {} is physical and requires a directory; specify a new one with --into, or a logical backup with \
                 --backup",
                backup.id
            ),
        }
        Ok(())
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
        let target = Target::prepare(&self.options(), Some(backup.major))?;
        let (recovered, reached) = runtime.block_on(async {
            let (recovered, reached) = physical::restore(folder, backup, key, &target, until).await?;
            let mut config = recovered.config();
            config.dbname(&backup.database);
            let client = migrate::connect(&ConnInfo::from_config(config)?).await?;
            restored::move_versions(&client).await?;
            anyhow::Ok((recovered, reached))
        })?;
        let directory = target.keep(recovered)?;
        let reached = reached.map_or_else(|| backup.state.at.clone(), |at| at.to_string());
        print_line(&format!("restored backup {}; its last commit is from {reached}", backup.id));
        print_line(&format!("to serve it: DATA_DIR={} make up", quoted(&directory.to_string_lossy())));
        if backup.database != "postgres" {
            print_line(&format!("its tables are in the database {}, not in postgres", backup.database));
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
        let directory = runtime.block_on(drill::logical_into(&self.options(), folder, backup, key, &resources))?;
        print_line(&format!("restored backup {} as of {}", backup.id, backup.state.at));
        print_line(&format!("to serve it: DATA_DIR={} make up", quoted(&directory.to_string_lossy())));
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
        bail!("this build has no embedded database; specify an empty one with --into postgres://…")
    }
}

impl Drill {
    /// Restores the newest backup into a temporary database and compares it.
    ///
    /// # Errors
    /// When the backup cannot be restored, or a table differs.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let key = self.key.key()?;
        expect_database(&self.database)?;
        with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            let started = Instant::now();
            let outcome = async {
                let fetched = self.bucket.repository(&self.from)?.fetch(None, None, key.as_ref(), false).await?;
                self.drill(&fetched.folder, &fetched.backup, key.as_ref(), self.resources.load()?).await?;
                anyhow::Ok(fetched.backup)
            }
            .await
            .map_err(|error| {
                let scratch = std::env::temp_dir();
                explain_disk_full(error, self.into.is_none().then_some(scratch.as_path()))
            });
            record(&conninfo, Task::RestoreDrill, started, &outcome, |backup| {
                (Some(backup.bytes()), format!("backup {}", backup.id))
            })
            .await;
            let backup = outcome?;
            let rows: i64 = backup.state.tables.iter().map(|table| table.rows).sum();
            let tables = backup.state.tables.len();
            print_line(&format!(
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
            Kind::Logical => {
                bail!("this build has no embedded database; specify an empty one with --into (DRILL_INTO)")
            }
        }
    }
}
