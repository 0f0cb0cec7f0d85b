//! The components in front of the server: nginx, its certificate, and whether the service responds.

use std::path::Path;
use std::process::Command;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::certificate;
use super::report::{Report, SERVICE as AREA_SERVICE};
use crate::config::arguments::of_environment;
use crate::config::nginx::{NginxConfig, program};
use crate::ops::probe::{self, ProbeTarget};
use crate::shell::quoted;

const AREA_NGINX: &str = "nginx";

/// Checks nginx, as the environment configures it; RUN_DIR only for a service that `is_away`, whose user may be another one.
pub fn nginx(report: &mut Report, is_away: bool) {
    let config: NginxConfig = match of_environment() {
        Ok(config) => config,
        Err(wrong) => return report.setting(wrong, super::CORRECT),
    };
    // The test below uses another RUN_DIR, whose path may be short enough.
    if let Err(wrong) = config.upstreams() {
        report.setting(wrong.to_string(), super::CORRECT);
    }
    if is_away {
        run_dir(report, &config.run_dir);
    }
    match config.certificate() {
        Ok(Some(found)) if found.certificate.exists() || !found.self_signed => certificate::check(report, &found),
        Ok(_) => {}
        Err(wrong) => {
            report.setting(wrong.to_string(), "put the file there, readable by nginx's user, or correct this setting");
        }
    }
    if program().is_none() {
        let what = "nginx is not installed on this machine; the server can be reached only without its limits";
        return report.warning(AREA_NGINX, what, "apt-get install nginx, or run the check on the machine that has it");
    }
    match check() {
        Ok(None) => report.fine(AREA_NGINX, "nginx accepts the configuration from the settings"),
        Ok(Some(error)) => {
            let remedy = remedy(&error);
            report.wrong(AREA_NGINX, format!("nginx rejects its configuration: {error}"), remedy);
        }
        Err(error) => report.wrong(AREA_NGINX, format!("nginx cannot be run: {error}"), "pycrudapi nginx check"),
    }
}

/// Runs nginx's configuration test in a temporary directory; returns its error.
fn check() -> std::io::Result<Option<String>> {
    let directory = std::env::temp_dir().join(format!("pycrudapi-doctor-{}", std::process::id()));
    let tested = Command::new(std::env::current_exe()?)
        .args(["nginx", "check"])
        .env("RUN_DIR", &directory)
        .env("TLS_DIR", directory.join("tls"))
        .output();
    let _ = std::fs::remove_dir_all(&directory); // it does not exist if the settings are invalid
    let tested = tested?;
    let output = String::from_utf8_lossy(&tested.stderr);
    Ok((!tested.status.success()).then(|| reason(&output).to_owned()))
}

/// The line with the reason: nginx's last line only states that the test has failed.
fn reason(output: &str) -> &str {
    let is_reason = |line: &&str| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level));
    output.lines().find(is_reason).or(output.lines().last()).unwrap_or("no output")
}

/// The remedy for an error; nginx's messages are not translated.
fn remedy(error: &str) -> &'static str {
    if error.contains("host not found in upstream") {
        "correct UPSTREAM, or check that this machine's DNS resolves the name: getent hosts NAME"
    } else if error.contains("cannot load certificate") || error.contains("SSL_CTX_use") {
        "correct TLS_CERT and TLS_KEY"
    } else {
        "pycrudapi nginx check prints the whole output, with the settings of the service"
    }
}

/// Checks whether the service is ready; returns whether it does not respond.
pub async fn service(report: &mut Report, port: u16) -> bool {
    let target = ProbeTarget::local(port);
    let response = probe::ask(&target).await;
    let is_away = !matches!(response, Ok(_) | Err(probe::ProbeError::Status(..)));
    match response {
        Ok(_) => report.fine(AREA_SERVICE, format!("{target} is ready")),
        // Errors of nginx and of the server are JSON.
        Err(probe::ProbeError::Status(_, body)) if !body.trim_start().starts_with('{') => {
            another_program(report, port, "answers, but is not this service");
        }
        Err(probe::ProbeError::Http(_)) => another_program(report, port, "does not answer in HTTP"),
        Err(probe::ProbeError::Status(status, body)) => report.wrong(
            AREA_SERVICE,
            format!("{target} answers {status}: {}", body.trim()),
            "see the other findings; docs/operations.md, \"Troubleshooting\"",
        ),
        Err(error) => report.warning(
            AREA_SERVICE,
            format!("no response from {target}: {error}"),
            "make up; set HTTP_PORT for another port",
        ),
    }
    is_away
}

/// Reports that the service's port is in use.
fn another_program(report: &mut Report, port: u16, answer: &str) {
    let what = format!("HTTP_PORT={port} is used by another program, which {answer}");
    let remedy = format!("ss -ltnp 'sport = :{port}' names it: stop it, or set HTTP_PORT to another port");
    report.wrong(AREA_SERVICE, what, remedy);
}

/// Checks whether nginx and the server can write to RUN_DIR, or create it.
fn run_dir(report: &mut Report, directory: &Path) {
    // Only a relative path can be without an existing ancestor: the last one is empty.
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let writable =
        if existing.is_dir() { access(existing, Access::WRITE_OK | Access::EXEC_OK) } else { Err(Errno::NOTDIR) };
    if let Err(error) = writable {
        let what = format!("RUN_DIR={} cannot be written to: {}: {error}", directory.display(), existing.display());
        let remedy =
            format!("ls -ld {}; make it writable for this user, or set RUN_DIR", quoted(&existing.to_string_lossy()));
        report.setting(what, remedy);
    }
}
