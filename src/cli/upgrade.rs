//! `pycrudapi upgrade-cluster`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

#[cfg(feature = "embedded")]
use super::database::expect_database;
#[cfg(feature = "embedded")]
use super::output::print_line;
#[cfg(feature = "embedded")]
use crate::backup::upgrade;
use crate::config::{DatabaseChoice, DatabaseConfig};
#[cfg(feature = "embedded")]
use crate::db::embedded::Upgrade;

/// `upgrade-cluster`.
#[derive(Debug, Args)]
pub struct UpgradeCluster {
    /// The directory of the programs of the release that created the cluster; by default they are searched for.
    #[arg(long)]
    old_bin: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseConfig,
}

impl UpgradeCluster {
    /// Upgrades the embedded cluster to the newest release of PostgreSQL.
    ///
    /// # Errors
    /// A chain of causes that includes the remedy; the old cluster is unchanged.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if let DatabaseChoice::Given(_) = self.database.choice()? {
            bail!(
                "the configured database (DATABASE_URL or POSTGRES_HOST) is not embedded; upgrade its server instead"
            );
        }
        self.embedded()
    }

    #[cfg(feature = "embedded")]
    fn embedded(&self) -> anyhow::Result<ExitCode> {
        expect_database(&self.database)?;
        let options = self.database.embedded_options();
        let Some(upgrade) = Upgrade::prepare(&options, self.old_bin.as_deref())? else {
            print_line(
                "there is no newer release of postgresql on this machine; install one, or set PG_BIN to its programs",
            );
            return Ok(ExitCode::SUCCESS);
        };
        let ((old, new), data) = (upgrade.releases(), upgrade.data());
        print_line(&format!("copying {} from postgresql {old} to {new}", data.display()));
        // A single thread: the programs that it starts are killed when it ends.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let copied = runtime.block_on(upgrade::copy(&upgrade))?;
        let kept = upgrade.keep()?;
        print_line(&format!(
            "copied and compared: {} rows in {} tables of {} databases, roles, privileges and sequences",
            copied.rows, copied.tables, copied.databases
        ));
        if let Some(settings) = copied.left_behind {
            print_line(&format!("settings of `alter system` are not copied: {settings}"));
        }
        print_line(&format!("the old cluster is kept in {}; remove it when the new one works", kept.display()));
        print_line("a physical backup belongs to one cluster: use a new directory for `pycrudapi backup --to`");
        Ok(ExitCode::SUCCESS)
    }

    #[cfg(not(feature = "embedded"))]
    fn embedded(&self) -> anyhow::Result<ExitCode> {
        bail!("this build has no embedded database; upgrade the server of DATABASE_URL")
    }
}
