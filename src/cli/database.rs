//! The database that a subcommand works on: the configured one, or the embedded one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;

use crate::config::{DatabaseChoice, DatabaseConfig};
use crate::db::conninfo::ConnInfo;
use crate::db::migrate;

/// Whether a subcommand works on an embedded database that another process keeps running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It keeps it running itself.
    Alone,
    /// It works beside the server.
    Shared,
    /// The same, and not without one: it would keep the server from starting.
    Running,
}

/// Runs a subcommand on the configured database, or on the embedded one, which lives as long as the subcommand unless it
/// is there already.
///
/// # Errors
/// The subcommand's, or that there is no database.
#[cfg_attr(not(feature = "embedded"), expect(unused_variables, reason = "there is no embedded database to share"))]
pub fn with_database<F>(
    database: &DatabaseConfig,
    usage: Use,
    threads: usize,
    work: impl FnOnce(ConnInfo) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_keep_alive(Duration::MAX)
            .enable_all()
            .build()
            .context("cannot start threads")?;
        // The first of the threads for what blocks (files, names of hosts, long answers), which are kept: tokio panics where it has
        // none and the system refuses it one, and with one the work waits its turn.
        runtime.spawn_blocking(|| ());
        anyhow::Ok(runtime)
    };
    match database.choice()? {
        DatabaseChoice::Given(conninfo) => runtime()?.block_on(work(*conninfo))?,
        #[cfg(feature = "embedded")]
        DatabaseChoice::Embedded => {
            use crate::db::embedded::{self, Embedded, EmbeddedError};
            use crate::db::roles;
            let options = database.embedded_options();
            let start = || match Embedded::start(&options) {
                Ok(embedded) => {
                    let config = embedded.config();
                    Ok((Some(embedded), config))
                }
                Err(in_use @ EmbeddedError::InUse { .. }) if usage == Use::Shared => {
                    Ok((None, embedded::running(&options)?.ok_or(in_use)?))
                }
                Err(error) => Err(error),
            };
            let (_embedded, config) = if usage == Use::Running {
                let none =
                    || format!("nobody serves the database in {}; start the server first", options.data_dir.display());
                (None, embedded::running(&options)?.with_context(none)?)
            } else {
                start()?
            };
            let conninfo = ConnInfo::from_config(config)?.with_request_role(roles::REQUESTS);
            runtime()?.block_on(async {
                // Before anybody tries to connect as this role.
                let administrator = connect(&conninfo.as_migrator().expect("it is another role")).await?;
                roles::create_request_role(&administrator, &conninfo).await?;
                drop(administrator);
                work(conninfo).await
            })?;
        }
        #[cfg(not(feature = "embedded"))]
        DatabaseChoice::Embedded => {
            anyhow::bail!(
                "no database is configured; set DATABASE_URL, for example postgres://user:password@host:5432/name"
            )
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a database that would be made now, and has nothing in it.
///
/// # Errors
/// When there is none.
#[cfg(feature = "embedded")]
pub fn expect_database(database: &DatabaseConfig) -> anyhow::Result<()> {
    let options = database.embedded_options();
    let is_given = matches!(database.choice()?, DatabaseChoice::Given(_));
    if !is_given && crate::db::embedded::existing(&options)?.is_none() {
        anyhow::bail!(
            "there is no database in {}; start the server first, or set DATA_DIR or DATABASE_URL to what it has",
            options.data_dir.display()
        );
    }
    Ok(())
}

/// The same where it is always given.
///
/// # Errors
/// When its settings are at fault.
#[cfg(not(feature = "embedded"))]
pub fn expect_database(database: &DatabaseConfig) -> anyhow::Result<()> {
    database.choice().map(drop).map_err(Into::into)
}

/// A connection to it.
///
/// # Errors
/// When it cannot be reached.
pub async fn connect(conninfo: &ConnInfo) -> anyhow::Result<Client> {
    migrate::connect(conninfo).await.context("cannot connect to the database; check DATABASE_URL")
}
