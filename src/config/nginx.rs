//! nginx's settings, and values derived from several of them.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, value_parser};
use ipnet::IpNet;

use super::common::{CommonConfig, HttpPort};
use super::fault::WrongSetting;
use super::values::millis;

/// Where an orchestrator mounts a TLS secret, unless TLS_CERT and TLS_KEY are set.
const MOUNTED_CERTIFICATE: &str = "/etc/pycrudapi/tls/tls.crt";
const MOUNTED_KEY: &str = "/etc/pycrudapi/tls/tls.key";

/// Longest path in a Unix socket's address: `sun_path` has 108 bytes, the last of which is zero.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// How much longer the longest spelling of a socket's path is; see `nginx::upstream`.
const DETOURS_BYTES: usize = "./".len() * (SPELLINGS - 1);
/// How often a retriable request is tried on a single server (must be equal to `proxy_next_upstream_tries`). More than two,
/// because a killed process takes a moment to exit: its other threads may accept the next try and break it as well.
pub const SPELLINGS: usize = 6;

/// Settings of `nginx`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "nginx")]
pub struct NginxConfig {
    /// Directory for the configuration, pid files and the server's socket; nothing is written elsewhere.
    #[arg(long, env, default_value = "/tmp/pycrudapi", value_parser = quotable_path, hide_env_values = true)]
    pub run_dir: PathBuf,

    /// HTTP port, which the health check also uses.
    #[command(flatten)]
    pub http: HttpPort,

    /// HTTPS port (1 to 65535), opened if there is a certificate.
    #[arg(long, env, default_value_t = 8443, value_parser = value_parser!(u16).range(1..), hide_env_values = true)]
    pub https_port: u16,

    /// Mounted certificate with its chain; requires TLS_KEY.
    ///
    /// [default: /etc/pycrudapi/tls/tls.crt, if it and tls.key can be read]
    #[arg(long, env, value_parser = quotable_path, hide_env_values = true)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of TLS_CERT.
    #[arg(long, env, value_parser = quotable_path, hide_env_values = true)]
    pub tls_key: Option<PathBuf>,

    /// Create a self-signed certificate if none is mounted, and renew it before it expires.
    #[arg(long, env, default_value_t = false, action = ArgAction::Set, hide_env_values = true)]
    pub tls_self_signed: bool,

    /// Directory of that certificate.
    ///
    /// [default: tls in RUN_DIR]
    #[arg(long, env, value_parser = quotable_path, hide_env_values = true)]
    pub tls_dir: Option<PathBuf>,

    /// Requests per second per client address (1 to 1000000), then 429; or `off`.
    ///
    /// A lower limit refuses users who share an address; a higher one lets one client use more of the shared capacity.
    #[arg(long, env, default_value = "1000", value_parser = limit::<1_000_000>, hide_env_values = true)]
    pub rate_limit: Limit,

    /// Connections per client address (1 to 65535), then 429; or `off`.
    #[arg(long, env, default_value = "512", value_parser = limit::<65_535>, hide_env_values = true)]
    pub conn_limit: Limit,

    /// Proxies in front whose X-Forwarded-For is trusted, as addresses and networks separated by commas.
    #[arg(long, env, hide_env_values = true)]
    pub trusted_proxies: Option<List<Network>>,

    /// The servers, as `host:port` or `unix:/path` separated by commas.
    ///
    /// [default: pycrudapi.sock in RUN_DIR]
    #[arg(long, env, hide_env_values = true)]
    pub upstream: Option<List<Upstream>>,

    /// Longest pause of a client while it sends a request or reads a response, in milliseconds (1 to 3600000).
    #[arg(long, env, default_value = "10000", value_parser = millis::<1, 3_600_000>, hide_env_values = true)]
    pub client_timeout_ms: Duration,

    /// Longest pause of the server within a response, in milliseconds (1 to 3600000), then 504.
    #[arg(long, env, default_value = "30000", value_parser = millis::<1, 3_600_000>, hide_env_values = true)]
    pub upstream_timeout_ms: Duration,

    /// Access log, JSON on standard output.
    #[arg(long, env, value_enum, default_value_t = Switch::On, hide_env_values = true)]
    pub access_log: Switch,

    /// Port on 127.0.0.1 for nginx's connection and request counts, at /stub_status (1 to 65535).
    ///
    /// For a metrics exporter on this machine, or in the same pod; it cannot be reached through the other ports.
    #[arg(long, env, value_parser = value_parser!(u16).range(1..), hide_env_values = true)]
    pub nginx_status_port: Option<u16>,

    /// Number of worker processes (1 to 512); `auto` is one per processor, as far as memory permits.
    #[arg(long, env, default_value = "auto", value_parser = workers, hide_env_values = true)]
    pub nginx_workers: Workers,

    /// Settings shared with the server.
    #[command(flatten)]
    pub common: CommonConfig,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Enabled.
    On,
    /// Disabled.
    Off,
}

/// A limit; none is `off`.
pub type Limit = Bound<u32>;
/// A number of worker processes; none is `auto`.
pub type Workers = Bound<u16>;

/// A number, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<N>(pub Option<N>);

fn limit<const MAX: u32>(text: &str) -> Result<Limit, String> {
    match text.parse() {
        _ if text == "off" => Ok(Bound(None)),
        Ok(number) if (1..=MAX).contains(&number) => Ok(Bound(Some(number))),
        _ => Err(format!("must be a whole number from 1 to {MAX}, or off")),
    }
}

fn workers(text: &str) -> Result<Workers, &'static str> {
    match text.parse() {
        _ if text == "auto" => Ok(Bound(None)),
        Ok(number) if (1..=512).contains(&number) => Ok(Bound(Some(number))),
        _ => Err("must be a whole number of processes from 1 to 512, or auto"),
    }
}

/// A list separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether it contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether it lies within the network of an address and a prefix length.
    pub fn is_within(&self, address: IpAddr, bits: u8) -> bool {
        IpNet::new(address, bits).is_ok_and(|network| network.contains(&self.0))
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        // nginx warns of bits after the prefix.
        network.map(|network| Self(network.trunc())).map_err(|_| "must be addresses or networks separated by commas")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A server to which nginx passes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be host:port or unix:/path, several separated by commas";
        if let Some(path) = text.strip_prefix("unix:") {
            return quotable_path(path).map(Self::Unix).map_err(|_| EXPECTED);
        }
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let known = match v6 {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(name),
        };
        match port.parse::<u16>() {
            Ok(1..) if known && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self::Tcp(text.to_owned())),
            _ => Err(EXPECTED),
        }
    }
}

/// An absolute path that can be quoted in nginx's configuration, where `$` begins a variable.
fn quotable_path(text: &str) -> Result<PathBuf, &'static str> {
    if !text.starts_with('/') || text.contains(|letter: char| letter == '$' || letter.is_control()) {
        return Err("must be an absolute path without $ and control characters");
    }
    let path = text.trim_end_matches('/');
    Ok(PathBuf::from(if path.is_empty() { "/" } else { path }))
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// Whether this program creates and renews it; then both are one file.
    pub self_signed: bool,
}

impl NginxConfig {
    /// Directory for nginx's own files.
    pub fn work_dir(&self) -> PathBuf {
        self.run_dir.join("nginx")
    }

    /// The proxies whose X-Forwarded-For is trusted.
    pub fn trusted(&self) -> &[Network] {
        self.trusted_proxies.as_ref().map_or(&[], |list| &list.0)
    }

    /// The servers to which requests are passed.
    ///
    /// # Errors
    /// If the path of a socket is too long.
    pub fn upstreams(&self) -> Result<Vec<Upstream>, WrongSetting> {
        let given = self.upstream.as_ref().map_or(&[][..], |list| &list.0);
        let own = Upstream::Unix(self.run_dir.join("pycrudapi.sock"));
        let servers = if given.is_empty() { vec![own] } else { given.to_vec() };
        let too_long = |path: &Path| path.as_os_str().len() + DETOURS_BYTES > SOCKET_PATH_MAX_BYTES;
        for server in &servers {
            if let Upstream::Unix(path) = server
                && too_long(path)
            {
                const REASON: &str = "makes the path of the server's socket too long";
                return Err(if given.is_empty() {
                    WrongSetting::new("RUN_DIR", &self.run_dir.display(), REASON, "/run/pycrudapi")
                } else {
                    WrongSetting::new("UPSTREAM", &format!("unix:{}", path.display()), REASON, "unix:/run/api.sock")
                });
            }
        }
        Ok(servers)
    }

    /// The certificate, or none if nginx only serves plain HTTP.
    ///
    /// # Errors
    /// If only one of the two files is given, one cannot be read, or HTTP uses the same port.
    pub fn certificate(&self) -> Result<Option<Certificate>, WrongSetting> {
        let mounted = |path: &str| File::open(path).is_ok();
        let found = match (&self.tls_cert, &self.tls_key) {
            (None, None) if mounted(MOUNTED_CERTIFICATE) && mounted(MOUNTED_KEY) => {
                Certificate { certificate: MOUNTED_CERTIFICATE.into(), key: MOUNTED_KEY.into(), self_signed: false }
            }
            (None, None) if self.tls_self_signed => {
                let file = self.tls_dir.clone().unwrap_or_else(|| self.run_dir.join("tls")).join("self-signed.pem");
                Certificate { certificate: file.clone(), key: file, self_signed: true }
            }
            (None, None) => return Ok(None),
            (certificate, key) => Certificate {
                certificate: readable("TLS_CERT", certificate.as_deref())?,
                key: readable("TLS_KEY", key.as_deref())?,
                self_signed: false,
            },
        };
        if self.https_port == self.http.http_port {
            return Err(WrongSetting::new("HTTPS_PORT", &self.https_port, "must differ from HTTP_PORT", "8443"));
        }
        Ok(Some(found))
    }
}

/// A readable file of the certificate.
fn readable(name: &str, path: Option<&Path>) -> Result<PathBuf, WrongSetting> {
    let Some(path) = path else {
        return Err(WrongSetting::of(name, "", "must be set, because the other half of the certificate is"));
    };
    match File::open(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(WrongSetting::of(name, &path.display(), "there is no such file"))
        }
        Err(error) => Err(WrongSetting::of(name, &path.display(), &format!("cannot be read: {error}"))),
    }
}

/// Finds nginx: in the directories of PATH, and in those that are missing from an ordinary user's.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join("nginx")).find(|file| file.is_file())
}
