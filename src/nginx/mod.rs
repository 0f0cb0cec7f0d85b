//! nginx in front of the server: checks its settings, renders its configuration and becomes nginx.
//!
//! nginx cannot read its settings from the environment, so this program renders them. All files are written under RUN_DIR. No
//! shell or other program is required, and an invalid setting ends the start with a message that names it.

mod capacity;
mod certificate;
pub mod connections;
mod listen;
mod predecessor;
mod private;
mod render;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustix::process::{Signal, getppid, kill_process};

use crate::config::nginx::{NginxConfig, program};
use crate::config::{Auth, WrongSetting};
use crate::shutdown;
use certificate::StoredFingerprint;
use private::Refused;
use render::{Machine, Rendering, rendering};

/// Exit status for an invalid setting, as for an invalid argument.
const WRONG: u8 = 2;

/// An action on nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Write the configuration, then become nginx in the foreground.
    Run,
    /// Write the configuration and have nginx test it.
    Check,
    /// Renew the certificate when it is due, and reload a running nginx when its certificate has changed.
    Reload,
}

/// Performs an action; `run` does not return.
///
/// # Errors
/// A chain of causes with a remedy. An invalid setting is not an error here, but a message on standard error and status 2.
pub fn run(action: Action, config: &NginxConfig) -> anyhow::Result<ExitCode> {
    let done = carry_out(action, config);
    match done {
        Err(error) if error.is::<WrongSetting>() || error.is::<Refused>() => {
            let _ = writeln!(io::stderr(), "{error}"); // the status reports the failure too
            Ok(ExitCode::from(WRONG))
        }
        done => done,
    }
}

fn carry_out(action: Action, config: &NginxConfig) -> anyhow::Result<ExitCode> {
    let nginx = program().context("nginx is not installed; on Debian: apt-get install nginx")?;
    let machine = Machine { version: version(&nginx)?, ipv6: listen::ipv6_is_there() };
    let rendering = rendering(config, machine)?;
    match action {
        Action::Run => {
            // nginx drains and exits when its supervisor is killed, instead of keeping the ports.
            if let Some(parent) = config.common.parent_pid.or_else(getppid) {
                shutdown::end_with_parent(parent, Signal::QUIT).context("the parent process has gone")?;
            }
            predecessor::end(&rendering.work_dir);
            let fingerprint = certificate::prepare(rendering.certificate.as_ref())?;
            let configuration = write(config, &rendering)?;
            StoredFingerprint(&rendering.work_dir).set(&fingerprint)?;
            let sockets = listen::listen(&rendering.ports, machine.ipv6)?;
            if config.common.auth == Auth::Off && config.upstream.is_some() {
                // Remote servers are reached over a network; a local server logs this warning itself.
                tracing::warn!(
                    "AUTH=off: anyone who can connect to this nginx or to the servers behind it may change \
                     everything; set AUTH=on there"
                );
            }
            connections::start(&sockets, rendering.connections, config.trusted())?;
            let error = command(&nginx, &configuration).env("NGINX", listen::hand_over(sockets)).exec();
            Err(error).context("cannot become nginx")
        }
        Action::Check => {
            certificate::prepare(rendering.certificate.as_ref())?;
            let configuration = write(config, &rendering)?;
            Ok(if is_good(&nginx, &configuration)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Reload => {
            let fingerprint = certificate::prepare(rendering.certificate.as_ref())?;
            let stored = StoredFingerprint(&rendering.work_dir);
            let Some(running) = predecessor::running(&rendering.work_dir) else { return Ok(ExitCode::SUCCESS) };
            if !stored.is(&fingerprint) {
                let configuration = write(config, &rendering)?;
                // With an invalid configuration nginx keeps the old one, but reports that only in its log.
                if !is_good(&nginx, &configuration)? {
                    bail!("the new certificate is unusable; nginx keeps using the old one");
                }
                stored.set(&fingerprint)?;
                kill_process(running, Signal::HUP).context("cannot reload nginx")?;
                let _ = writeln!(io::stdout(), "nginx was reloaded: its certificate has changed");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes the configuration into private directories, and returns the path of its main file.
fn write(config: &NginxConfig, rendering: &Rendering) -> anyhow::Result<PathBuf> {
    private::directory(&config.run_dir, "RUN_DIR", true)?;
    private::directory(&rendering.work_dir, "RUN_DIR", true)?;
    rendering.write().with_context(|| format!("cannot write to {}", rendering.work_dir.display()))
}

/// Returns true if nginx accepts a configuration; nginx prints what is wrong with it.
fn is_good(nginx: &Path, configuration: &Path) -> anyhow::Result<bool> {
    Ok(command(nginx, configuration).args(["-t", "-q"]).status().context("cannot run nginx")?.success())
}

fn command(nginx: &Path, configuration: &Path) -> Command {
    let mut command = Command::new(nginx);
    // -e: before nginx has read its configuration it would open the distribution's log.
    let folder = configuration.parent().unwrap_or(Path::new("/"));
    command.args(["-e", "stderr", "-p"].map(OsStr::new)).arg(folder).arg("-c").arg(configuration);
    command
}

fn version(nginx: &Path) -> anyhow::Result<[u32; 3]> {
    let said = Command::new(nginx).arg("-v").output().with_context(|| format!("cannot run {}", nginx.display()))?;
    let said = String::from_utf8_lossy(&said.stderr);
    let number = said.split_once("nginx/").map_or("", |(_, number)| number);
    let parts = number.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse().ok());
    parts.take(3).collect::<Vec<u32>>().try_into().ok().with_context(|| format!("unknown version of nginx: {said}"))
}
