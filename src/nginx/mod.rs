//! nginx in front of the server: checks its settings, renders its configuration and becomes it.
//!
//! nginx cannot read its environment, so this does. Everything is written below RUN_DIR. No shell and no other program is
//! needed, and a wrong setting stops the start with a sentence that names it.

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
use certificate::Remembered;
use private::Refused;
use render::{Machine, Rendering, rendering};

/// Exit status for a wrong setting, as for a wrong argument.
const WRONG: u8 = 2;

/// What to do with nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Write the configuration, then become nginx in the foreground.
    Run,
    /// Write the configuration and let nginx test it.
    Check,
    /// Renew the certificate when it is due, and reload a running nginx when its certificate has changed.
    Reload,
}

/// Carries an action out; `run` does not return.
///
/// # Errors
/// A chain of causes that ends in what to do. A wrong setting is none, but a sentence on standard error and status 2.
pub fn run(action: Action, config: &NginxConfig) -> anyhow::Result<ExitCode> {
    let done = carry_out(action, config);
    match done {
        Err(error) if error.is::<WrongSetting>() || error.is::<Refused>() => {
            let _ = writeln!(io::stderr(), "{error}"); // the status says it as well
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
            // It drains and goes when its supervisor is killed, instead of holding the ports for nobody.
            if let Some(parent) = config.common.parent_pid.or_else(getppid) {
                shutdown::end_with_parent(parent, Signal::QUIT).context("the parent process has gone")?;
            }
            predecessor::end(&rendering.work_dir);
            let fingerprint = certificate::prepare(rendering.certificate.as_ref())?;
            let configuration = write(config, &rendering)?;
            Remembered(&rendering.work_dir).set(&fingerprint)?;
            let sockets = listen::listen(&rendering.ports, machine.ipv6)?;
            if config.common.auth == Auth::Off && config.upstream.is_some() {
                // Servers elsewhere are reached over a network; one on this machine says it itself.
                tracing::warn!(
                    "AUTH=off: whoever reaches this or the servers behind it may change everything; set AUTH=on there"
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
            let remembered = Remembered(&rendering.work_dir);
            let Some(running) = predecessor::running(&rendering.work_dir) else { return Ok(ExitCode::SUCCESS) };
            if !remembered.is(&fingerprint) {
                let configuration = write(config, &rendering)?;
                // nginx keeps its old configuration when the new one is at fault, but says so only in its log.
                if !is_good(&nginx, &configuration)? {
                    bail!("the new certificate cannot be used; nginx goes on with the one it has");
                }
                remembered.set(&fingerprint)?;
                kill_process(running, Signal::HUP).context("cannot reload nginx")?;
                let _ = writeln!(io::stdout(), "nginx was reloaded: its certificate has changed");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes the configuration into directories that are ours, and returns the path of its first file.
fn write(config: &NginxConfig, rendering: &Rendering) -> anyhow::Result<PathBuf> {
    private::directory(&config.run_dir, "RUN_DIR", true)?;
    private::directory(&rendering.work_dir, "RUN_DIR", true)?;
    rendering.write().with_context(|| format!("cannot write to {}", rendering.work_dir.display()))
}

/// Whether nginx takes a configuration; it says itself what is wrong with one.
fn is_good(nginx: &Path, configuration: &Path) -> anyhow::Result<bool> {
    Ok(command(nginx, configuration).args(["-t", "-q"]).status().context("cannot run nginx")?.success())
}

fn command(nginx: &Path, configuration: &Path) -> Command {
    let mut command = Command::new(nginx);
    // -e: before it has read its configuration nginx would open the log of the distribution.
    let folder = configuration.parent().unwrap_or(Path::new("/"));
    command.args(["-e", "stderr", "-p"].map(OsStr::new)).arg(folder).arg("-c").arg(configuration);
    command
}

fn version(nginx: &Path) -> anyhow::Result<[u32; 3]> {
    let said = Command::new(nginx).arg("-v").output().with_context(|| format!("cannot run {}", nginx.display()))?;
    let said = String::from_utf8_lossy(&said.stderr);
    let number = said.split_once("nginx/").map_or("", |(_, number)| number);
    let parts = number.split(|letter: char| !letter.is_ascii_digit()).map_while(|part| part.parse().ok());
    parts.take(3).collect::<Vec<u32>>().try_into().ok().with_context(|| format!("not the version of an nginx: {said}"))
}
