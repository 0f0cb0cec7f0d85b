//! The components in front of the server: nginx, its certificate, and whether the service responds.

use std::process::Command;

use super::certificate;
use super::report::Report;
use crate::config::arguments::of_environment;
use crate::config::nginx::{NginxConfig, program};
use crate::ops::probe::{self, ProbeTarget};

const AREA_NGINX: &str = "nginx";
const AREA_SERVICE: &str = "service";

/// Checks nginx, as the environment configures it.
pub fn nginx(report: &mut Report) {
    let config: NginxConfig = match of_environment() {
        Ok(config) => config,
        Err(wrong) => return report.setting(wrong, super::CORRECT),
    };
    // The test below uses another RUN_DIR, whose path may be short enough.
    if let Err(wrong) = config.upstreams() {
        report.setting(wrong.to_string(), super::CORRECT);
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

/// Checks whether the service is ready.
pub async fn service(report: &mut Report, port: u16) {
    let target = ProbeTarget::local(port);
    match probe::ask(&target).await {
        Ok(_) => report.fine(AREA_SERVICE, format!("{target} is ready")),
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
}
