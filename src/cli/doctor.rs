//! `pycrudapi doctor`: what it looks at, and how it tells it.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::TRANSFER_THREADS;
use super::database::{Use, with_database};
use super::output::say;
use crate::config::{BackupPlaceConfig, DatabaseChoice, DatabaseConfig, HttpPort, ResourcesConfig, ServerConfig};
use crate::db::error_chain::error_chain;
use crate::doctor::report::Report;
use crate::doctor::{look_around, look_at_database};
use crate::resource::registry::Resources;

/// How the findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person.
    Text,
    /// For a program: an array of objects with `severity` (wrong, warning, fine), `area`, `what` and `mend`.
    Json,
}

/// The settings are those of `serve`, so that what it would do is looked at.
#[derive(Debug, Args)]
pub struct Doctor {
    /// How the findings are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The port on which the service is asked whether it is ready.
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
    /// Looks at everything that the settings let it; the status is 1 when anything is wrong, and 2 when a setting is.
    ///
    /// # Errors
    /// When the system refuses what every program needs.
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
        // First, because the look at the database may start one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(look_around(&mut report, (&self.server, &self.backups), resources, self.http.http_port));
        drop(runtime);
        // Without its descriptions nobody can say what should be in it.
        if self.expect_database(&mut report)
            && let Some(resources) = resources
        {
            self.look_at_database(&mut report, resources);
        }
        report.sort();
        say(&match self.format {
            Format::Text => report.text(),
            Format::Json => report.json(),
        });
        Ok(ExitCode::from(report.status()))
    }

    fn look_at_database(&self, report: &mut Report, resources: Resources) {
        let found = &mut *report;
        let looked = with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            look_at_database(found, (&self.database, &self.server), &conninfo, resources).await;
            Ok(())
        });
        if let Err(error) = looked {
            report.wrong("database", error_chain(error.as_ref()), "correct what the sentence names, and see PostgreSQL's log");
        }
    }

    /// Whether there is a database to look at: none is made for a look.
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
                crate::doctor::look_at_data(report, &found);
                true
            }
            Ok(None) => {
                let mend = "make up makes one; DATA_DIR or DATABASE_URL name another";
                report.warning("database", format!("there is none in {directory} yet"), mend);
                false
            }
            Err(error) => {
                report.wrong("database", error_chain(&error), "correct DATA_DIR");
                false
            }
        }
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_self, reason = "the other build's looks for it")]
    fn expect_embedded(&self, report: &mut Report) -> bool {
        let example = "set DATABASE_URL, for example postgres://user:password@host:5432/name";
        report.setting("no database is configured", example);
        false
    }
}
