//! The database of a subcommand: the configured one, or the embedded one.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::Client;

use crate::config::{DatabaseChoice, DatabaseConfig};
use crate::db::conninfo::ConnInfo;
use crate::db::migrate;

/// Whether a subcommand uses an embedded database that another process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It must run the database itself.
    Alone,
    /// It uses the server's if that is running.
    Shared,
    /// It only uses a running one: starting one would prevent the server from starting.
    Running,
}

/// Runs a subcommand on the configured database, or on the embedded one, which is stopped after the subcommand unless it was
/// already running.
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
        // Starts the first thread for blocking work (files, name resolution, long responses), which is kept: without any such
        // thread, tokio panics if the system refuses to create one; with one, the work waits.
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
                    || format!("the database in {} is not running; start the server first", options.data_dir.display());
                (None, embedded::running(&options)?.with_context(none)?)
            } else {
                start()?
            };
            let conninfo = ConnInfo::from_config(config)?.with_request_role(roles::REQUESTS);
            runtime()?.block_on(async {
                // Before any connection as this role.
                let administrator = connect(&conninfo.as_migrator().expect("it is a different role")).await?;
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

/// Rejects an embedded database that does not exist yet and would be created empty.
///
/// # Errors
/// If there is none.
#[cfg(feature = "embedded")]
pub fn expect_database(database: &DatabaseConfig) -> anyhow::Result<()> {
    let options = database.embedded_options();
    let is_given = matches!(database.choice()?, DatabaseChoice::Given(_));
    if !is_given && crate::db::embedded::existing(&options)?.is_none() {
        anyhow::bail!(
            "there is no database in {}; start the server first, or set DATA_DIR or DATABASE_URL to the server's",
            options.data_dir.display()
        );
    }
    Ok(())
}

/// As above, in a build without the embedded database.
///
/// # Errors
/// If its settings are invalid.
#[cfg(not(feature = "embedded"))]
pub fn expect_database(database: &DatabaseConfig) -> anyhow::Result<()> {
    database.choice().map(drop).map_err(Into::into)
}

/// Opens a connection to the database.
///
/// # Errors
/// If it cannot be reached.
pub async fn connect(conninfo: &ConnInfo) -> anyhow::Result<Client> {
    migrate::connect(conninfo).await.context("cannot connect to the database; check DATABASE_URL")
}
