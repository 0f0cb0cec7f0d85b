//! `pycrudapi doctor`: runs the checks and prints the findings.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::TRANSFER_THREADS;
use super::database::{Use, with_database};
use super::output::print_line;
use crate::config::{BackupPlaceConfig, DatabaseChoice, DatabaseConfig, HttpPort, ResourcesConfig, ServerConfig};
use crate::db::error_chain::error_chain;
use crate::doctor::report::Report;
use crate::doctor::{check_database, check_environment};
use crate::resource::registry::Resources;

/// Output format of the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an array of objects with `severity` (wrong, warning, fine), `area`, `what` and `mend`.
    Json,
}

/// Uses the settings of `serve`, to check what it would use.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Output format of the findings.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Port of the readiness check.
    #[command(flatten)]
    http: HttpPort,
    #[command(flatten)]
    resources: ResourcesConfig,
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    server: ServerConfig,
    #[command(flatten)]
    backups: BackupPlaceConfig,
}

impl Doctor {
    /// Runs all checks that the settings permit; the status is 1 if there is a problem, and 2 if a setting is invalid.
    ///
    /// # Errors
    /// If the system denies basic resources.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut report = Report::default();
        let resources = match self.resources.load() {
            Ok(resources) => Some(resources),
            Err(error) => {
                report.setting(
                    error_chain(&error),
                    "correct RESOURCES_DIR or RESOURCES, or the description; pycrudapi resource check",
                );
                None
            }
        };
        // First, because the checks of the database may start one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(check_environment(&mut report, (&self.server, &self.backups), resources, self.http.http_port));
        drop(runtime);
        // Without the descriptions, the required tables are unknown.
        if self.expect_database(&mut report)
            && let Some(resources) = resources
        {
            self.check_database(&mut report, resources);
        }
        report.sort();
        print_line(&match self.format {
            Format::Text => report.text(),
            Format::Json => report.json(),
        });
        Ok(ExitCode::from(report.status()))
    }

    fn check_database(&self, report: &mut Report, resources: Resources) {
        let found = &mut *report;
        let checked = with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            check_database(found, (&self.database, &self.server), &conninfo, resources).await;
            Ok(())
        });
        if let Err(error) = checked {
            report.wrong(
                "database",
                error_chain(error.as_ref()),
                "fix the cause in the message, and see PostgreSQL's log",
            );
        }
    }

    /// Whether there is a database to check; none is created.
    fn expect_database(&self, report: &mut Report) -> bool {
        match self.database.choice() {
            Ok(DatabaseChoice::Given(_)) => true,
            Ok(DatabaseChoice::Embedded) => self.expect_embedded(report),
            Err(error) => {
                report.setting(error.to_string(), "correct this setting: docs/settings.md");
                false
            }
        }
    }

    #[cfg(feature = "embedded")]
    fn expect_embedded(&self, report: &mut Report) -> bool {
        use crate::db::embedded;
        let options = self.database.embedded_options();
        let directory = options.data_dir.display();
        match embedded::existing(&options) {
            Ok(Some(found)) => {
                crate::doctor::check_data_dir(report, &found);
                true
            }
            Ok(None) => {
                let remedy = "make up creates one; set DATA_DIR or DATABASE_URL for another";
                report.warning("database", format!("there is no embedded database in {directory} yet"), remedy);
                false
            }
            Err(error) => {
                report.wrong("database", error_chain(&error), "correct DATA_DIR");
                false
            }
        }
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_self, reason = "the other build uses it")]
    fn expect_embedded(&self, report: &mut Report) -> bool {
        let example = "set DATABASE_URL, for example postgres://user:password@host:5432/name";
        report.setting("no database is configured", example);
        false
    }
}
