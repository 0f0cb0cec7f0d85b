//! Renders nginx's configuration: the templates, and every value that they reference.
//!
//! The values come from typed settings. Only paths need quoting, and are always in double quotes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{capacity, private};
use crate::config::WrongSetting;
use crate::config::memory_limit;
use crate::config::nginx::{Bound, Certificate, NginxConfig, SPELLINGS, Switch, Upstream};
use crate::http::cors::Origins;

/// The version since which http2 is a separate directive, and the parameter of `listen` causes a warning.
const HTTP2_DIRECTIVE: [u32; 3] = [1, 25, 1];
/// The server responds within its own deadline plus a second; this margin is for a server that does not.
const BULK_GRACE_MS: u128 = 5000;

/// The files of the directory nginx/, with the names that nginx uses.
const FILES: [(&str, &str); 13] = [
    ("cors.conf", include_str!("../../nginx/cors.conf.template")),
    ("errors.conf", include_str!("../../nginx/errors.conf")),
    ("fate.conf", include_str!("../../nginx/fate.conf")),
    ("forwarded.conf", include_str!("../../nginx/forwarded.conf.template")),
    ("headers.conf", include_str!("../../nginx/headers.conf")),
    ("limits.conf", include_str!("../../nginx/limits.conf.template")),
    ("log.conf", include_str!("../../nginx/log.conf")),
    ("malformed.conf", include_str!("../../nginx/malformed.conf")),
    ("nginx.conf", include_str!("../../nginx/nginx.conf.template")),
    ("problems.conf", include_str!("../../nginx/problems.conf")),
    ("proxy.conf", include_str!("../../nginx/proxy.conf")),
    ("status.conf", include_str!("../../nginx/status.conf.template")),
    ("tls.conf", include_str!("../../nginx/tls.conf.template")),
];

/// Properties of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// The version of nginx.
    pub version: [u32; 3],
    /// Whether IPv6 is available: containers often lack it, and nginx would refuse to start.
    pub ipv6: bool,
}

/// A rendered configuration.
pub struct Rendering {
    values: BTreeMap<&'static str, String>,
    /// The directory of the files.
    pub work_dir: PathBuf,
    /// The certificate.
    pub certificate: Option<Certificate>,
    /// The ports to listen on.
    pub ports: Vec<u16>,
    /// Connections per worker.
    pub connections: u64,
}

/// Derives every value from the settings.
///
/// # Errors
/// If settings contradict each other.
pub fn rendering(config: &NginxConfig, machine: Machine) -> Result<Rendering, WrongSetting> {
    let limit = memory_limit();
    let certificate = config.certificate()?;
    let upstreams = upstream_lines(&config.upstreams()?).join("\n        ");
    let connections = capacity::connections(limit);
    let send_buffer = capacity::send_buffer(limit);
    let long_bodies = capacity::long_bodies(limit);
    let common = &config.common;
    let (http, https) = (config.http.http_port, config.https_port);
    if let Some(port) = config.nginx_status_port.filter(|port| [http, https].contains(port)) {
        return Err(WrongSetting::new("NGINX_STATUS_PORT", &port, "must differ from HTTP_PORT and HTTPS_PORT", "8081"));
    }
    let trusted = config.trusted();
    let directive = machine.version >= HTTP2_DIRECTIVE;
    let listen_http2 = if directive { "" } else { " http2" };
    let v6 = |port: u16, more: &str| match machine.ipv6 {
        true => format!("listen [::]:{port}{more} default_server backlog=4096{send_buffer};"),
        false => String::new(),
    };
    let path = |path: Option<&PathBuf>| path.map(|path| quoted(&path.display())).unwrap_or_default();
    let mut limits = Vec::new();
    if let Bound(Some(rate)) = config.rate_limit {
        limits.push(format!("limit_req zone=requests burst={rate} nodelay;"));
    }
    if let Bound(Some(connections)) = config.conn_limit {
        limits.push(format!("limit_conn connections {connections};"));
    }
    if let Some(bodies) = long_bodies {
        limits.push(format!("limit_conn long_bodies {bodies};"));
        limits.push(format!("limit_conn client_long_bodies {};", bodies / 4));
    }
    let with = |wanted: bool, text: &str| if wanted { text.to_owned() } else { String::new() };
    let upstream_ms = config.upstream_timeout_ms.as_millis();
    let values = BTreeMap::from([
        ("work_dir", quoted(&config.work_dir().display())),
        // As root the workers change to this account; for an ordinary user nginx would warn about the directive.
        (
            "user",
            private::worker().map(|account| format!("user {} {};", account.user, account.group)).unwrap_or_default(),
        ),
        ("workers", config.nginx_workers.0.map_or_else(|| capacity::workers(limit), u64::from).to_string()),
        ("worker_connections", connections.to_string()),
        ("idle_connections", capacity::idle_connections(connections).to_string()),
        ("gzip_memory", capacity::gzip_memory(limit).to_owned()),
        // For nginx 0 means no limit; for the server it means no time.
        ("drain_timeout_ms", common.drain_timeout_ms.as_millis().max(1).to_string()),
        ("access_log", access_log(config.access_log).to_owned()),
        ("client_timeout_ms", config.client_timeout_ms.as_millis().to_string()),
        ("upstream_timeout_ms", upstream_ms.to_string()),
        ("max_body_bytes", common.max_body_bytes.to_string()),
        // A single passenger may be sent to the same URL as many.
        ("bulk_max_bytes", common.max_body_bytes.max(common.bulk_max_bytes).to_string()),
        ("bulk_timeout_ms", upstream_ms.max(common.bulk_timeout_ms.as_millis() + BULK_GRACE_MS).to_string()),
        ("upstream_servers", upstreams),
        ("http_port", http.to_string()),
        ("http_port_v6", v6(http, "")),
        // A file with limits or TLS settings is included only if they are configured.
        ("limits", with(!limits.is_empty(), "include limits.conf;")),
        ("limits_apply", limits.join("\n        ")),
        (
            "rate_zone",
            match config.rate_limit {
                Bound(Some(rate)) => format!("limit_req_zone $limited_client zone=requests:10m rate={rate}r/s;"),
                Bound(None) => String::new(),
            },
        ),
        (
            "connection_zone",
            with(config.conn_limit.0.is_some(), "limit_conn_zone $limited_client zone=connections:10m;"),
        ),
        ("set_real_ip_from", lines(trusted.iter().map(|network| format!("set_real_ip_from {network};")), "\n")),
        ("trusted", lines(trusted.iter().map(|network| format!("{network} 1;")), "\n    ")),
        ("cors_origins", lines(cors_origins(common.cors_allow_origins.as_ref()).into_iter(), "\n    ")),
        ("status", with(config.nginx_status_port.is_some(), "include status.conf;")),
        ("status_port", config.nginx_status_port.map(|port| port.to_string()).unwrap_or_default()),
        ("tls", with(certificate.is_some(), "include tls.conf;")),
        ("https_port", https.to_string()),
        ("https_port_v6", v6(https, &format!(" ssl{listen_http2}"))),
        ("listen_http2", listen_http2.to_owned()),
        ("http2", with(directive, "http2 on;")),
        ("certificate", path(certificate.as_ref().map(|found| &found.certificate))),
        ("certificate_key", path(certificate.as_ref().map(|found| &found.key))),
        // Two years, as browsers require; see forwarded.conf for self-signed certificates.
        ("hsts", with(certificate.as_ref().is_some_and(|found| !found.self_signed), "max-age=63072000")),
        ("send_buffer", send_buffer),
    ]);
    let ports = [http].into_iter().chain(certificate.is_some().then_some(https)).collect();
    Ok(Rendering { values, work_dir: config.work_dir(), certificate, ports, connections })
}

fn access_log(access_log: Switch) -> &'static str {
    match access_log {
        // Whole lines are written at once, at most 4 KiB, which a pipe never mixes with lines of another worker.
        Switch::On => "access_log /dev/stdout access buffer=4k flush=100ms if=$worth_logging;",
        Switch::Off => "access_log off;",
    }
}

/// Escapes a text for use inside double quotes.
fn quoted(text: &impl ToString) -> String {
    text.to_string().replace('\\', r"\\").replace('"', r#"\""#)
}

fn lines(lines: impl Iterator<Item = String>, between: &str) -> String {
    lines.collect::<Vec<_>>().join(between)
}

/// The lines of a map from the request's origin to the allowed one.
fn cors_origins(origins: Option<&Origins>) -> Vec<String> {
    match origins {
        None | Some(Origins::None) => Vec::new(),
        Some(Origins::Any) => vec![r#""~." "*";"#.to_owned()],
        Some(Origins::Listed(origins)) => {
            let texts = origins.iter().filter_map(|origin| origin.to_str().ok());
            texts.map(|origin| format!(r#""{origin}" "{origin}";"#)).collect()
        }
    }
}

/// The `server` lines of the upstream block.
///
/// nginx tries each entry once per request, and with a single entry there is no second attempt; a single server is therefore
/// listed again as backup, for requests whose connection broke. A Unix socket is spelled differently each time: idle
/// connections are found by spelling, and those to the failed server must not be used for the second attempt. `max_fails=0`,
/// because the only server must never be skipped.
fn upstream_lines(servers: &[Upstream]) -> Vec<String> {
    let spelled = |server: &Upstream, detours: usize| match server {
        Upstream::Tcp(address) => address.clone(),
        Upstream::Unix(path) => {
            let folder = path.parent().unwrap_or(Path::new("/")).display().to_string();
            let name = path.file_name().unwrap_or_default().display().to_string();
            let path = format!("{}/{}{name}", folder.trim_end_matches('/'), "./".repeat(detours));
            format!("\"unix:{}\"", quoted(&path))
        }
    };
    match servers {
        [only] => (0..SPELLINGS)
            .map(|detours| {
                let backup = if detours == 0 { "" } else { " backup" };
                format!("server {} max_fails=0{backup};", spelled(only, detours))
            })
            .collect(),
        // A server that fails twice is skipped for two seconds; the others respond meanwhile. If all have failed, for example
        // after a simultaneous restart, nginx would try none of them, so each is listed again as backup and used when no other
        // is left.
        several => {
            let first =
                several.iter().map(|server| format!("server {} max_fails=2 fail_timeout=2s;", spelled(server, 0)));
            let again = several.iter().map(|server| format!("server {} max_fails=0 backup;", spelled(server, 1)));
            first.chain(again).collect()
        }
    }
}

impl Rendering {
    /// Writes every file and returns the path of nginx.conf.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self) -> io::Result<PathBuf> {
        for (name, template) in FILES {
            fs::write(self.work_dir.join(name), self.fill(template))?;
        }
        Ok(self.work_dir.join("nginx.conf"))
    }

    /// Replaces every `[[name]]` of a template, except in comments.
    fn fill(&self, template: &str) -> String {
        let mut text = String::with_capacity(template.len());
        for line in template.split_inclusive('\n') {
            let mut rest = line;
            while !line.trim_start().starts_with('#') {
                let Some((before, behind)) = rest.split_once("[[") else { break };
                let (name, after) = behind.split_once("]]").expect("a template closes what it opens");
                text.push_str(before);
                text.push_str(self.values.get(name).expect("a template names what there is"));
                rest = after;
            }
            text.push_str(rest);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};
    use std::collections::BTreeSet;

    fn config(arguments: &[&str]) -> NginxConfig {
        let command = NginxConfig::augment_args(Command::new("nginx"))
            .mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        let matches = command.try_get_matches_from([&["nginx"], arguments].concat()).expect("settings");
        NginxConfig::from_arg_matches(&matches).expect("settings")
    }

    fn rendered(arguments: &[&str]) -> BTreeMap<&'static str, String> {
        let rendering =
            rendering(&config(arguments), Machine { version: [1, 26, 0], ipv6: true }).expect("they go together");
        FILES.into_iter().map(|(name, template)| (name, rendering.fill(template))).collect()
    }

    #[test]
    fn every_file_of_the_folder_is_rendered_and_names_nothing_unknown() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx");
        let there: BTreeSet<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                entry.expect("an entry").file_name().to_string_lossy().trim_end_matches(".template").to_owned()
            })
            .collect();
        assert_eq!(FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), there);
        for (name, text) in rendered(&["--tls-self-signed=true"]) {
            let directives = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            assert!(!directives.collect::<String>().contains("[["), "{name}: {text}");
        }
    }

    #[test]
    fn a_drain_timeout_of_zero_becomes_one_millisecond_for_nginx() {
        let text = &rendered(&["--drain-timeout-ms=0"])["nginx.conf"];
        assert!(text.contains("worker_shutdown_timeout 1ms;"), "{text}");
    }

    #[test]
    fn the_limits_of_bulk_requests_are_at_least_those_of_single_requests() {
        let text =
            &rendered(&["--max-body-bytes=4096", "--bulk-max-bytes=1024", "--bulk-timeout-ms=1000"])["nginx.conf"];
        assert_eq!(text.matches("client_max_body_size    4096;").count(), 1, "{text}");
        assert_eq!(text.matches("client_max_body_size 4096;").count(), 1, "{text}");
        assert_eq!(text.matches("proxy_read_timeout 30000ms;").count(), 2, "{text}");
    }

    #[test]
    fn a_single_server_is_tried_again_under_other_spellings() {
        assert_eq!(
            upstream_lines(&[Upstream::Unix("/run/api.sock".into())])[..2],
            [
                "server \"unix:/run/api.sock\" max_fails=0;".to_owned(),
                "server \"unix:/run/./api.sock\" max_fails=0 backup;".to_owned(),
            ]
        );
        let several: Vec<Upstream> = ["a:80", "unix:/b"].map(|text| text.parse().expect("a server")).into();
        assert_eq!(
            upstream_lines(&several),
            [
                "server a:80 max_fails=2 fail_timeout=2s;",
                "server \"unix:/b\" max_fails=2 fail_timeout=2s;",
                "server a:80 max_fails=0 backup;",
                "server \"unix:/./b\" max_fails=0 backup;",
            ]
        );
    }

    #[test]
    fn trusted_networks_and_origins_are_listed_as_nginx_reads_them() {
        let files = rendered(&["--trusted-proxies=10.1.2.3/8, fd00::1,", "--cors-allow-origins=https://app.example"]);
        assert!(files["forwarded.conf"].contains("set_real_ip_from 10.0.0.0/8;\nset_real_ip_from fd00::1/128;\n"));
        assert!(files["cors.conf"].contains(r#""https://app.example" "https://app.example";"#));
    }

    #[test]
    fn the_status_is_served_only_locally_and_only_if_configured() {
        let files = rendered(&["--nginx-status-port=8081"]);
        assert!(files["nginx.conf"].contains("include status.conf;"), "{}", files["nginx.conf"]);
        assert_eq!(files["status.conf"].matches("listen ").count(), 1);
        assert!(files["status.conf"].contains("listen 127.0.0.1:8081;"), "{}", files["status.conf"]);
        assert!(!rendered(&[])["nginx.conf"].contains("status.conf"));
        let taken = rendering(&config(&["--nginx-status-port=8080"]), Machine { version: [1, 26, 0], ipv6: true });
        assert!(taken.err().is_some_and(|wrong| wrong.to_string().contains("must differ")));
    }

    #[test]
    fn paths_are_quoted_and_escaped() {
        let folder = tempfile::tempdir().expect("a folder");
        let pair = folder.path().join(r#"my "own" \ çert"#);
        fs::create_dir(&pair).expect("made");
        for file in ["a.crt", "a.key"] {
            fs::write(pair.join(file), "").expect("written");
        }
        let shown = pair.display();
        let files = rendered(&[
            &format!("--run-dir={shown}"),
            &format!("--tls-cert={shown}/a.crt"),
            &format!("--tls-key={shown}/a.key"),
        ]);
        let quoted = format!(r#"{}/my \"own\" \\ çert"#, folder.path().display());
        assert!(files["nginx.conf"].contains(&format!("pid \"{quoted}/nginx/nginx.pid\";")), "{}", files["nginx.conf"]);
        assert!(files["nginx.conf"].contains(&format!("server \"unix:{quoted}/pycrudapi.sock\" max_fails=0;")));
        assert!(
            files["tls.conf"].contains(&format!("ssl_certificate     \"{quoted}/a.crt\";")),
            "{}",
            files["tls.conf"]
        );
    }
}
