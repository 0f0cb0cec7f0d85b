//! `pycrudapi doctor`: what it looks at, and how it tells it.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::TRANSFER_THREADS;
use super::database::{Use, with_database};
use super::output::say;
use crate::config::{DatabaseConfig, HttpPort, ResourcesConfig, ServerConfig};
use crate::db::told::told;
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
}

impl Doctor {
    /// Looks at everything; the status is 1 when anything is wrong.
    ///
    /// # Errors
    /// When descriptions of resources cannot be read, or a setting of the database is wrong.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let resources = self.resources.load()?;
        let mut report = Report::default();
        // First, because the look at the database may start one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(look_around(&mut report, &self.server, resources, self.http.http_port));
        drop(runtime);
        if self.expect_database(&mut report)? {
            self.look_at_database(&mut report, resources);
        }
        report.sort();
        say(&match self.format {
            Format::Text => report.text(),
            Format::Json => report.json(),
        });
        Ok(if report.is_bad() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn look_at_database(&self, report: &mut Report, resources: Resources) {
        let found = &mut *report;
        let looked = with_database(&self.database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
            look_at_database(found, (&self.database, &self.server), &conninfo, resources).await;
            Ok(())
        });
        if let Err(error) = looked {
            report.wrong("database", told(error.as_ref()), "correct what the sentence names, and see PostgreSQL's log");
        }
    }

    /// Whether there is a database to look at: none is made for a look.
    #[cfg(feature = "embedded")]
    fn expect_database(&self, report: &mut Report) -> anyhow::Result<bool> {
        use crate::config::DatabaseChoice;
        use crate::db::embedded;
        if matches!(self.database.choice()?, DatabaseChoice::Given(_)) {
            return Ok(true);
        }
        let options = self.database.embedded_options();
        let directory = options.data_dir.display();
        match embedded::existing(&options) {
            Ok(Some(found)) => {
                crate::doctor::look_at_data(report, &found);
                Ok(true)
            }
            Ok(None) => {
                let mend = "make up makes one; DATA_DIR or DATABASE_URL name another";
                report.warning("database", format!("there is none in {directory} yet"), mend);
                Ok(false)
            }
            Err(error) => {
                report.wrong("database", told(&error), "correct DATA_DIR");
                Ok(false)
            }
        }
    }

    #[cfg(not(feature = "embedded"))]
    fn expect_database(&self, _: &mut Report) -> anyhow::Result<bool> {
        self.database.choice().map(|_| true).map_err(Into::into)
    }
}
