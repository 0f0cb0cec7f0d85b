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
use output::{say, written};
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

/// Large writes keep the reader of a pipe from waking for every few rows.
const OUTPUT_BUFFER_BYTES: usize = 256 * 1024;

/// A passenger CRUD API on PostgreSQL.
///
/// Every setting is a flag and an environment variable; the flag wins.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Settings of the log.
    #[command(flatten)]
    pub log: LogConfig,
    /// Settings that were given on the command line with a password in them.
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
    /// Bring the database's schema up to date and end; with MIGRATE_USER make the role that requests work as, too.
    Migrate {
        /// Wait for a PostgreSQL that cannot be reached yet.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Load rows from CSV: all of them, or none and the line at fault.
    Import {
        /// The name of their resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        from: Source,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Write all rows as CSV to standard output, in the form that import reads.
    Export {
        /// The name of their resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        resources: ResourcesConfig,
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Write made-up rows as CSV to standard output, in the form that import reads.
    Generate {
        /// The name of their resource.
        #[arg(long, default_value = "passengers")]
        resource: String,
        #[command(flatten)]
        resources: ResourcesConfig,
        /// How many.
        #[arg(long)]
        rows: u64,
        /// The same seed gives the same rows of a description, everywhere.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Write the OpenAPI document of this version to standard output.
    Openapi {
        #[command(flatten)]
        resources: ResourcesConfig,
    },
    /// Write, check and show descriptions of resources.
    Resource {
        #[command(subcommand)]
        command: resource::Command,
    },
    /// Make, list, rotate and revoke tokens of the API, for AUTH=on.
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Look at everything that the service depends on, and say what is wrong, with what mends it; the exit status is 1 then.
    Doctor(Box<doctor::Doctor>),
    /// Back the database up into a folder while the service runs: once, or all the time.
    Backup(backup::Make),
    /// List the backups in a folder, and to which instants they can be brought back.
    Backups(backup::List),
    /// Bring a backup back: a new directory for DATA_DIR, or an empty database.
    Restore(restore::Restore),
    /// Bring the newest backup back beside the service, compare every table, and throw it away.
    RestoreDrill(restore::Drill),
    /// Move the embedded database to the newest PostgreSQL on this machine: copied, compared, exchanged, and the old one kept.
    UpgradeCluster(upgrade::UpgradeCluster),
    /// Ask a running server whether it is ready; the exit status is the answer.
    Healthcheck(HealthcheckArgs),
    /// Check nginx's settings, write its configuration and become nginx.
    #[cfg(target_os = "linux")]
    Nginx {
        /// What to do.
        #[arg(value_enum, default_value_t = nginx::Action::Run)]
        action: nginx::Action,
        #[command(flatten)]
        config: Box<NginxConfig>,
    },
    /// Beside nginx: refuse connections of addresses that hold too many.
    #[cfg(target_os = "linux")]
    #[command(name = nginx::connections::SUBCOMMAND, hide = true)]
    NginxConnections(nginx::connections::ConnectionsArgs),
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    /// What to ask: `http://host:port/path`, or `unix:/path` for /readyz on a socket.
    ///
    /// [default: http://127.0.0.1:$HTTP_PORT/readyz]
    #[arg(long, env, hide_env_values = true)]
    healthcheck_url: Option<ProbeTarget>,

    /// Ask again until it is; whoever runs this has the deadline.
    #[arg(long)]
    wait: bool,

    /// The port asked on this machine when HEALTHCHECK_URL is not set.
    #[command(flatten)]
    http: HttpPort,
}

impl Cli {
    /// Reads the arguments and the environment; a wrong one ends the program with a sentence and status 2.
    pub fn read() -> Self {
        let matches = arguments::read(Self::command());
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.shown = matches.subcommand().map(|(_, matches)| arguments::shown_passwords(matches)).unwrap_or_default();
        cli
    }
}

/// Threads of the subcommands that move rows: one for the connection, one for the rest.
const TRANSFER_THREADS: usize = 2;

/// Pause between two attempts of `migrate --wait`; whoever starts a replica waits for it.
const WAIT_PAUSE: Duration = Duration::from_millis(500);

/// Pause between two questions of `healthcheck --wait`.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Runs the chosen subcommand to its end.
///
/// # Errors
/// A chain of causes that ends in what to do.
pub fn run(cli: &Cli, log: &LogOutput) -> anyhow::Result<ExitCode> {
    for setting in &cli.shown {
        tracing::warn!(
            setting,
            "a password on the command line is shown to every user of this machine by /proc; \
             set the variable of this name, or DATABASE_URL_FILE, POSTGRES_PASSWORD_FILE or REDIS_PASSWORD_FILE"
        );
    }
    match &cli.command {
        Command::Serve { database, resources, server } => {
            let resources = resources.load()?;
            // Before a database is prepared for a server that cannot start.
            if let Err(wrong) = server.auth.check(resources).and_then(|()| server.traces.check()) {
                log.say(&wrong.to_string());
                return Ok(ExitCode::from(2));
            }
            if let Some(parent) = server.common.parent_pid {
                shutdown::end_with_parent(parent, Signal::TERM).context("the process PARENT_PID has ended")?;
            }
            let is_behind = server.listen.iter().all(|address| matches!(address, ListenAddr::Inherited(_)));
            let log = telemetry::access_log(&cli.log, log, is_behind);
            // Before an embedded PostgreSQL is started, which is measured too.
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
                bail!("there are no made-up readings; generate rows of another resource");
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
                    tokio::time::sleep(WAIT_PAUSE).await; // nobody announces that a database has come up
                }
                outcome => break outcome.context("cannot migrate the database; check DATABASE_URL, and MIGRATE_USER"),
            }
        }
    };
    // The first process of a container is ended by no signal that it does not take.
    let (applied, _) = tokio::select! {
        outcome = migrating => outcome?,
        signal = shutdown::signalled() => bail!("stopped by {}", signal.context("cannot handle signals")?),
    };
    say(&format!("{applied} migrations applied; the schema is at version {}", migrate::latest_version()));
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
            tell_auth_is_off(!server.listen.iter().all(ListenAddr::is_local));
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

/// Said once at the start.
fn tell_auth_is_off(others_may_come: bool) {
    if others_may_come {
        tracing::warn!(
            "AUTH=off: whoever reaches this machine may read, change and delete everything; set AUTH=on, and make a token with \
             `pycrudapi token create`"
        );
    } else {
        tracing::info!("AUTH=off: no credentials are looked at; AUTH=on with `pycrudapi token create` changes that");
    }
}

fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let target = args.healthcheck_url.clone().unwrap_or_else(|| ProbeTarget::local(args.http.http_port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = async {
        loop {
            match probe::ask(&target).await {
                Err(_) if args.wait => tokio::time::sleep(PROBE_PAUSE).await, // nobody announces that it is ready
                outcome => break outcome,
            }
        }
    };
    match runtime.block_on(asking) {
        Ok(body) => {
            say(&body);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("{target} is not ready"))),
    }
}
