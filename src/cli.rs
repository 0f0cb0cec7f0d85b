//! The subcommands: `serve`, `migrate`, `import`, `export`, `generate`, `openapi`, `resource`, `token`, `backup`, `backups`,
//! `restore`, `restore-drill`, `upgrade-cluster`, `doctor`, `healthcheck`, `nginx`.

mod backup;
mod database;
mod doctor;
mod output;
mod resource;
mod restore;
mod token;
mod transfer;
mod upgrade;

use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::Signal;

use database::{Use, connect, with_database};
use output::{print_line, written};
use transfer::{Source, Transferred, import, transferred};

use crate::air_quality::transfer::Readings;
use crate::app::{App, Listeners};
use crate::config::{
    Auth, DatabaseConfig, HttpPort, LogConfig, MetricsListen, ResourcesConfig, ServerConfig, arguments,
};
use crate::db::conninfo::ConnInfo;
use crate::db::copy::{self, CopyError};
use crate::db::error::is_unreachable;
use crate::db::migrate;
use crate::log_output::LogOutput;
use crate::ops::probe::{self, ProbeTarget};
use crate::resource::generate::generate;
use crate::resource::registry::Resources;
use crate::server::Drained;
use crate::server::access_log::AccessLog;
use crate::server::listener::{ListenAddr, Listener};
#[cfg(target_os = "linux")]
use crate::{config::nginx::NginxConfig, nginx};
use crate::{docs, shutdown, telemetry};

/// Large writes, so that the reader of a pipe is not woken for every few rows.
const OUTPUT_BUFFER_BYTES: usize = 256 * 1024;

/// A passenger CRUD API on PostgreSQL.
///
/// Every setting is a flag and an environment variable; the flag takes precedence.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogConfig,
    /// Settings given on the command line that contain a password.
    #[arg(skip)]
    shown: Vec<&'static str>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API until SIGTERM or SIGINT.
    Serve {
        #[command(flatten)]
        database: DatabaseConfig,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        server: Box<ServerConfig>,
    },
    /// Bring the database's schema up to date and exit; with MIGRATE_USER, also create the role for requests.
    Migrate {
        /// Wait if PostgreSQL cannot be reached yet.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Load rows from CSV: all of them, or none and an error with the line.
    Import {
        /// The name of the resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        from: Source,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Write all rows as CSV to standard output, in the format that import reads.
    Export {
        /// The name of the resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Write random rows as CSV to standard output, in the format that import reads.
    Generate {
        /// The name of the resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        resources: ResourcesConfig,
        /// Number of rows.
        #[arg(long)]
        rows: u64,
        /// The same seed always generates the same rows for a description.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Write the OpenAPI document of this version to standard output.
    Openapi {
        #[command(flatten)]
        resources: ResourcesConfig,
    },
    /// Create, check and show descriptions of resources.
    Resource {
        #[command(subcommand)]
        command: resource::Command,
    },
    /// Create, list, rotate and revoke API tokens, for AUTH=on.
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Check everything that the service depends on, and print problems with their remedies; the exit status is 1 if there are
    /// any.
    Doctor(Box<doctor::Doctor>),
    /// Back up the database to a directory while the service runs: once, or continuously.
    Backup(backup::Make),
    /// List the backups in a directory, and the instants to which they can be restored.
    Backups(backup::List),
    /// Restore a backup: to a new directory for DATA_DIR, or to an empty database.
    Restore(restore::Restore),
    /// Restore the newest backup beside the service, compare every table, and discard it.
    RestoreDrill(restore::Drill),
    /// Upgrade the embedded database to the newest PostgreSQL on this machine: copied, compared, exchanged, and the old one
    /// kept.
    UpgradeCluster(upgrade::UpgradeCluster),
    /// Check whether a running server is ready; the exit status is 0 if it is.
    Healthcheck(HealthcheckArgs),
    /// Check nginx's settings, write its configuration and run nginx in place of this process.
    #[cfg(target_os = "linux")]
    Nginx {
        /// The action.
        #[arg(value_enum, default_value_t = nginx::Action::Run)]
        action: nginx::Action,
        #[command(flatten)]
        config: Box<NginxConfig>,
    },
    /// Runs beside nginx: refuses connections from addresses that have too many.
    #[cfg(target_os = "linux")]
    #[command(name = nginx::connections::SUBCOMMAND, hide = true)]
    NginxConnections(nginx::connections::ConnectionsArgs),
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    /// URL to check: `http://host:port/path`, or `unix:/path` for /readyz on a socket.
    ///
    /// [default: http://127.0.0.1:$HTTP_PORT/readyz]
    #[arg(long, env, hide_env_values = true)]
    healthcheck_url: Option<ProbeTarget>,

    /// Retry until it is ready; the caller sets the time limit.
    #[arg(long)]
    wait: bool,

    /// Port on this machine, if HEALTHCHECK_URL is not set.
    #[command(flatten)]
    http: HttpPort,
}

impl Cli {
    /// Parses the arguments and the environment; an invalid one exits the program with a message and status 2.
    pub fn read() -> Self {
        let matches = arguments::read(Self::command());
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.shown = matches.subcommand().map(|(_, matches)| arguments::shown_passwords(matches)).unwrap_or_default();
        cli
    }
}

/// Threads of the subcommands that transfer rows: one for the connection, one for the rest.
const TRANSFER_THREADS: usize = 2;

/// Delay between two attempts of `migrate --wait`, which the start of a replica waits for.
const WAIT_PAUSE: Duration = Duration::from_millis(500);

/// Delay between two attempts of `healthcheck --wait`.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Runs the chosen subcommand.
///
/// # Errors
/// A chain of causes that includes the remedy.
pub fn run(cli: &Cli, log: &LogOutput) -> anyhow::Result<ExitCode> {
    for setting in &cli.shown {
        tracing::warn!(
            setting,
            "a password on the command line is visible to every user of this machine in /proc; \
             set the variable of this name, or DATABASE_URL_FILE, POSTGRES_PASSWORD_FILE or REDIS_PASSWORD_FILE"
        );
    }
    match &cli.command {
        Command::Serve { database, resources, server } => {
            let resources = resources.load()?;
            // Checked before a database is prepared for a server that cannot start.
            if let Err(wrong) = server.auth.check(resources).and_then(|()| server.traces.check()) {
                log.write_line(&wrong.to_string());
                return Ok(ExitCode::from(2));
            }
            if let Some(parent) = server.common.parent_pid {
                shutdown::end_with_parent(parent, Signal::TERM).context("the process PARENT_PID has exited")?;
            }
            let is_behind = server.listen.iter().all(|address| matches!(address, ListenAddr::Inherited(_)));
            let log = telemetry::access_log(&cli.log, log, is_behind);
            // Before an embedded PostgreSQL is started, which also has metrics.
            let metrics = match server.metrics_listen {
                MetricsListen::Off => None,
                MetricsListen::At(_) => Some(telemetry::init_metrics()?),
            };
            with_database(database, Use::Alone, server.worker_threads.into(), |conninfo| {
                serve((database, server), resources, (log, metrics), conninfo)
            })
        }
        Command::Migrate { wait, resources, database } => {
            let resources = resources.load()?;
            with_database(database, Use::Alone, TRANSFER_THREADS, |conninfo| migrate(conninfo, resources, *wait))
        }
        Command::Import { resource, from, resources, database } => {
            let resources = resources.load()?;
            let table = transferred(resource, resources)?;
            with_database(database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
                match table {
                    Transferred::Resource(resource) => import(resource, from, conninfo, resources, resource.name).await,
                    Transferred::AirQuality => import(Readings, from, conninfo, resources, "readings").await,
                }
            })
        }
        Command::Export { resource, resources, database } => {
            let table = transferred(resource, resources.load()?)?;
            with_database(database, Use::Shared, TRANSFER_THREADS, |conninfo| async move {
                let client = connect(&conninfo).await?;
                let output = tokio::io::stdout();
                let exported = match table {
                    Transferred::Resource(resource) => copy::export(resource, &client, output).await,
                    Transferred::AirQuality => copy::export(Readings, &client, output).await,
                };
                match exported {
                    Err(CopyError::Output(error)) => written(Err(error)),
                    exported => Ok(exported?),
                }
            })
        }
        Command::Generate { resource, resources, rows, seed } => {
            let Transferred::Resource(resource) = transferred(resource, resources.load()?)? else {
                bail!("readings cannot be generated; generate rows of another resource");
            };
            let output = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, std::io::stdout().lock());
            written(generate(resource, output, *rows, *seed))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi { resources } => {
            written(std::io::stdout().write_all(&docs::document::json(resources.load()?, None)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Resource { command } => resource::run(command, log),
        Command::Token { command } => token::run(command),
        Command::Doctor(doctor) => doctor.run(),
        Command::Backup(make) => make.run(),
        Command::Backups(list) => list.run(),
        Command::Restore(restore) => restore.run(),
        Command::RestoreDrill(drill) => drill.run(),
        Command::UpgradeCluster(upgrade) => upgrade.run(),
        Command::Healthcheck(args) => healthcheck(args),
        #[cfg(target_os = "linux")]
        Command::Nginx { action, config } => nginx::run(*action, config),
        #[cfg(target_os = "linux")]
        Command::NginxConnections(args) => nginx::connections::run(args),
    }
}

async fn migrate(conninfo: ConnInfo, resources: Resources, wait: bool) -> anyhow::Result<()> {
    let migrating = async {
        loop {
            match migrate::prepare(&conninfo, &resources, || ()).await {
                Err(error) if wait && (error.is_absence() || is_unreachable(&error)) => {
                    tracing::info!(reason = &error as &dyn std::error::Error, "waiting for postgres");
                    tokio::time::sleep(WAIT_PAUSE).await; // there is no notification when a database becomes reachable
                }
                outcome => break outcome.context("cannot migrate the database; check DATABASE_URL and MIGRATE_USER"),
            }
        }
    };
    // As the first process of a container, this process is ended only by signals that it handles.
    let (applied, _) = tokio::select! {
        outcome = migrating => outcome?,
        signal = shutdown::signalled() => bail!("stopped by {}", signal.context("cannot handle signals")?),
    };
    print_line(&format!("{applied} migrations applied; the schema is at version {}", migrate::latest_version()));
    Ok(())
}

async fn serve(
    (database, server): (&DatabaseConfig, &ServerConfig),
    resources: Resources,
    (log, metrics): (AccessLog, Option<PrometheusHandle>),
    conninfo: ConnInfo,
) -> anyhow::Result<()> {
    let (trigger, shutdown) = shutdown::channel();
    let mut public = Vec::new();
    for address in &server.listen {
        public.push(Listener::bind(address).await?);
    }
    let metrics = match (&server.metrics_listen, metrics) {
        (MetricsListen::At(address), Some(handle)) => {
            Some((Listener::bind(&ListenAddr::Tcp(address.clone())).await?, handle))
        }
        _ => None,
    };
    let signalled = shutdown::signalled();
    let serving = async {
        let app =
            App::start((database, server), &conninfo, resources, Listeners { public, metrics, log }, &shutdown).await?;
        let listen: Vec<String> = server.listen.iter().map(ToString::to_string).collect();
        tracing::info!(listen = listen.join(","), metrics = %server.metrics_listen, "listening");
        if server.common.auth == Auth::Off {
            log_auth_is_off(!server.listen.iter().all(ListenAddr::is_local));
            if server.auth.is_given() {
                tracing::warn!(
                    "AUTH_ISSUER, AUTH_ANONYMOUS_SCOPES and PRINCIPAL_RATE_LIMIT have no effect while AUTH=off"
                );
            }
        }
        app.finished().await
    };
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        signal = signalled => {
            tracing::info!(signal = signal.context("cannot handle signals")?, "stopping");
            trigger.stop();
            serving.await
        }
    };
    if outcome? == Drained::Whole {
        tracing::info!("stopped");
    }
    Ok(())
}

/// Logs once at start that AUTH=off.
fn log_auth_is_off(is_reachable_by_others: bool) {
    if is_reachable_by_others {
        tracing::warn!(
            "AUTH=off: every client that can reach this machine can read, change and delete everything; set AUTH=on, and \
             create a token with `pycrudapi token create`"
        );
    } else {
        tracing::info!(
            "AUTH=off: credentials are not checked; to change this, set AUTH=on after `pycrudapi token create`"
        );
    }
}

fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let target = args.healthcheck_url.clone().unwrap_or_else(|| ProbeTarget::local(args.http.http_port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probing = async {
        loop {
            match probe::ask(&target).await {
                Err(_) if args.wait => tokio::time::sleep(PROBE_PAUSE).await, // there is no notification of readiness
                outcome => break outcome,
            }
        }
    };
    match runtime.block_on(probing) {
        Ok(body) => {
            print_line(&body);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("{target} is not ready"))),
    }
}
