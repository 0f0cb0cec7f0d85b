//! What stands in front: nginx, its certificate, and whether the service answers.

use std::process::Command;

use super::certificate;
use super::report::Report;
use crate::config::arguments::of_environment;
use crate::config::nginx::{NginxConfig, program};
use crate::ops::probe::{self, ProbeTarget};

const AREA_NGINX: &str = "nginx";
const AREA_SERVICE: &str = "service";

/// Looks at nginx, as the environment configures it.
pub fn nginx(report: &mut Report) {
    let config: NginxConfig = match of_environment() {
        Ok(config) => config,
        Err(wrong) => return report.setting(wrong, super::CORRECT),
    };
    // The test below has another RUN_DIR, whose path may do.
    if let Err(wrong) = config.upstreams() {
        report.setting(wrong.to_string(), super::CORRECT);
    }
    match config.certificate() {
        Ok(Some(found)) if found.certificate.exists() || !found.self_signed => certificate::look(report, &found),
        Ok(_) => {}
        Err(wrong) => report.setting(
            wrong.to_string(),
            "put the file there and let the user of nginx read it, or correct this setting",
        ),
    }
    if program().is_none() {
        let what = "nginx is not installed here; the server is reachable without its limits only";
        return report.warning(AREA_NGINX, what, "apt-get install nginx, or look at the machine that has it");
    }
    match check() {
        Ok(None) => report.fine(AREA_NGINX, "it takes the configuration that the settings make"),
        Ok(Some(said)) => {
            let mend = mend(&said);
            report.wrong(AREA_NGINX, format!("it refuses its configuration: {said}"), mend);
        }
        Err(error) => report.wrong(AREA_NGINX, format!("it cannot be run: {error}"), "pycrudapi nginx check"),
    }
}

/// Lets nginx test what the settings make, in a directory that goes again; returns what it says against it.
fn check() -> std::io::Result<Option<String>> {
    let place = std::env::temp_dir().join(format!("pycrudapi-doctor-{}", std::process::id()));
    let tested = Command::new(std::env::current_exe()?)
        .args(["nginx", "check"])
        .env("RUN_DIR", &place)
        .env("TLS_DIR", place.join("tls"))
        .output();
    let _ = std::fs::remove_dir_all(&place); // nothing was written when the settings are wrong
    let tested = tested?;
    let said = String::from_utf8_lossy(&tested.stderr);
    Ok((!tested.status.success()).then(|| reason(&said).to_owned()))
}

/// The line with the reason: nginx says at its end no more than that the test failed.
fn reason(said: &str) -> &str {
    let is_reason = |line: &&str| ["[emerg]", "[alert]", "[crit]"].iter().any(|level| line.contains(level));
    said.lines().find(is_reason).or(said.lines().last()).unwrap_or("it says nothing")
}

/// What mends it; nginx's words are the same everywhere.
fn mend(said: &str) -> &'static str {
    if said.contains("host not found in upstream") {
        "correct UPSTREAM, or see that this machine's DNS knows the name: getent hosts NAME"
    } else if said.contains("cannot load certificate") || said.contains("SSL_CTX_use") {
        "correct TLS_CERT and TLS_KEY"
    } else {
        "pycrudapi nginx check says all of it, with the settings of the service"
    }
}

/// Asks the service whether it is ready.
pub async fn service(report: &mut Report, port: u16) {
    let target = ProbeTarget::local(port);
    match probe::ask(&target).await {
        Ok(_) => report.fine(AREA_SERVICE, format!("{target} says that it is ready")),
        Err(probe::ProbeError::Status(status, body)) => report.wrong(
            AREA_SERVICE,
            format!("{target} answers {status}: {}", body.trim()),
            "see what is wrong besides; docs/operations.md, \"When it breaks\"",
        ),
        Err(error) => report.warning(
            AREA_SERVICE,
            format!("nobody answers on {target}: {error}"),
            "make up; HTTP_PORT names another port",
        ),
    }
}
