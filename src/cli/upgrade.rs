//! `pycrudapi upgrade-cluster`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

#[cfg(feature = "embedded")]
use super::database::expect_database;
#[cfg(feature = "embedded")]
use super::output::say;
#[cfg(feature = "embedded")]
use crate::backup::upgrade;
use crate::config::{DatabaseChoice, DatabaseConfig};
#[cfg(feature = "embedded")]
use crate::db::embedded::Upgrade;

/// `upgrade-cluster`.
#[derive(Debug, Args)]
pub struct UpgradeCluster {
    /// The directory of the programs of the release that made the cluster; they are searched for without.
    #[arg(long)]
    old_bin: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseConfig,
}

impl UpgradeCluster {
    /// Moves the embedded cluster to the newest release of PostgreSQL.
    ///
    /// # Errors
    /// A chain of causes that ends in what to do; the old cluster is as it was.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if let DatabaseChoice::Given(_) = self.database.choice()? {
            bail!("a database is given (DATABASE_URL or POSTGRES_HOST), and its server is upgraded by whoever runs it");
        }
        self.embedded()
    }

    #[cfg(feature = "embedded")]
    fn embedded(&self) -> anyhow::Result<ExitCode> {
        expect_database(&self.database)?;
        let options = self.database.embedded_options();
        let Some(upgrade) = Upgrade::prepare(&options, self.old_bin.as_deref())? else {
            say("no newer release of postgresql is on this machine; install one, or name its programs in PG_BIN");
            return Ok(ExitCode::SUCCESS);
        };
        let ((old, new), data) = (upgrade.releases(), upgrade.data());
        say(&format!("copying {} from postgresql {old} to {new}", data.display()));
        // One thread: programs that it starts end with it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let copied = runtime.block_on(upgrade::copy(&upgrade))?;
        let kept = upgrade.keep()?;
        say(&format!(
            "copied and compared: {} rows in {} tables of {} databases, roles, privileges and sequences",
            copied.rows, copied.tables, copied.databases
        ));
        if let Some(settings) = copied.left_behind {
            say(&format!("not taken along are settings of `alter system`: {settings}"));
        }
        say(&format!("the old cluster is kept in {}; remove it when all is well", kept.display()));
        say("a physical backup is of one cluster: begin a new folder with `pycrudapi backup --to`");
        Ok(ExitCode::SUCCESS)
    }

    #[cfg(not(feature = "embedded"))]
    fn embedded(&self) -> anyhow::Result<ExitCode> {
        bail!("this build has no embedded database; upgrade the server that DATABASE_URL names")
    }
}
