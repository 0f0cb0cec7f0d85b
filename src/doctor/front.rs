//! What stands in front: nginx, its certificate, and whether the service answers.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::report::Report;
use crate::config::arguments::of_environment;
use crate::config::nginx::{NginxConfig, program};
use crate::nginx::certificate;
use crate::ops::probe::{self, ProbeTarget};

const AREA_NGINX: &str = "nginx";
const AREA_SERVICE: &str = "service";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Who renews certificates by hand needs some days.
const CERTIFICATE_WARNING: Duration = DAY.saturating_mul(14);

/// Looks at nginx, as the environment configures it.
pub fn nginx(report: &mut Report) {
    let config: NginxConfig = match of_environment() {
        Ok(config) => config,
        Err(wrong) => return report.wrong(AREA_NGINX, wrong, "correct this setting"),
    };
    if program().is_none() {
        let what = "nginx is not installed here; the server is reachable without its limits only";
        return report.warning(AREA_NGINX, what, "apt-get install nginx, or look at the machine that has it");
    }
    match check() {
        Ok(None) => report.fine(AREA_NGINX, "it takes the configuration that the settings make"),
        Ok(Some(said)) => {
            report.wrong(AREA_NGINX, format!("it refuses its configuration: {said}"), "pycrudapi nginx check");
        }
        Err(error) => report.wrong(AREA_NGINX, format!("it cannot be run: {error}"), "pycrudapi nginx check"),
    }
    match config.certificate() {
        Ok(Some(found)) if found.certificate.exists() || !found.self_signed => {
            expiry(report, &found.certificate, found.self_signed);
        }
        Ok(_) => {}
        Err(wrong) => report.wrong(AREA_NGINX, wrong.to_string(), "correct this setting"),
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
    Ok((!tested.status.success()).then(|| said.lines().last().unwrap_or("it says nothing").to_owned()))
}

fn expiry(report: &mut Report, file: &Path, self_signed: bool) {
    let shown = file.display();
    let mend = if self_signed { "pycrudapi nginx reload" } else { "renew it, then pycrudapi nginx reload" };
    let Some(end) = certificate::end(file) else {
        return report.wrong(AREA_NGINX, format!("{shown} holds no certificate"), mend);
    };
    match end.duration_since(SystemTime::now()) {
        Err(_) => report.wrong(AREA_NGINX, format!("the certificate {shown} has expired"), mend),
        Ok(left) if left < CERTIFICATE_WARNING => {
            let days = left.as_secs() / DAY.as_secs();
            report.warning(AREA_NGINX, format!("the certificate {shown} expires in {days} days"), mend);
        }
        Ok(_) => report.fine(AREA_NGINX, "the certificate is good for more than two weeks"),
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
