//! Connection settings: libpq-style URLs and key/value strings, parsed completely before any connection is opened.
//!
//! tokio-postgres parses most of libpq's parameters. This module parses those that it does not support (`sslmode=verify-full`,
//! `sslrootcert`, …) and passes on the rest. Error texts contain the parameter's name and never its value, which may be a
//! password.
//!
//! Source of the rules: PostgreSQL documentation, "Database Connection Control Functions".

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::generation::Generations;
use super::tls::{self, TlsError, Verify};
use crate::hexadecimal;

/// Timeout of a connection attempt if the settings do not specify one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything needed to open a connection.
#[derive(Clone)]
pub struct ConnInfo {
    /// Addresses, credentials and options.
    pub config: Config,
    /// TLS connector, including how the server's certificate is verified.
    pub tls: MakeRustlsConnect,
    /// The role that migrates the same database, if it is a different one.
    pub migrator: Option<Migrator>,
    /// Connection generations of this database.
    pub generations: Generations,
    /// The TLS parameters as configured, for programs that use libpq.
    ssl: Extra,
}

/// A role that may create and alter tables.
#[derive(Clone)]
pub struct Migrator {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Option<Vec<u8>>,
}

/// Whether a text is meant as a connection string, valid or not, rather than a path: a URL, or pairs whose first key is a libpq
/// parameter.
pub fn is_conninfo(text: &str) -> bool {
    const NAMES: [&str; 8] = ["dbname", "host", "hostaddr", "password", "port", "service", "sslmode", "user"];
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
        || text.split_once('=').is_some_and(|(name, _)| NAMES.contains(&name.trim()))
}

/// Why connection settings were rejected; never contains a value.
#[derive(Debug, Error)]
pub enum ConnInfoError {
    /// The text is neither a URL nor key/value pairs.
    #[error("is not a PostgreSQL URL or key/value string: {0}; example: postgres://user:password@db.example:5432/name")]
    Syntax(String),
    /// A parameter has a value that is not allowed.
    #[error("has an unknown value for {parameter}; allowed: {allowed}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// The allowed values.
        allowed: &'static str,
    },
    /// A libpq parameter that this program does not support.
    #[error("sets {0}, which is not supported here; remove it")]
    Unsupported(String),
    /// Certificates could not be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The parameters that this module parses itself.
#[derive(Clone, Default)]
struct Extra {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl ConnInfo {
    /// Parses a libpq-style URL or key/value string.
    ///
    /// # Errors
    /// If the text is malformed, uses an unsupported parameter, or refers to certificates that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ConnInfoError> {
        if text.starts_with(['"', '\'']) {
            return Err(ConnInfoError::Syntax("it begins with a quote; remove the quotes around it".to_owned()));
        }
        let mut extra = Extra::default();
        let rest = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            split_url(text, &mut extra)?
        } else {
            split_pairs(text, &mut extra)?
        };
        let config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            ConnInfoError::Syntax(
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
            )
        })?;
        Self::with(config, &extra)
    }

    /// Parses the address of another server of the same cluster; parameters that it does not specify are taken from `first`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_with_defaults(text: &str, first: &Self) -> Result<Self, ConnInfoError> {
        let mut server = Self::parse(text)?;
        let (specified, config) = (server.config.clone(), &first.config);
        if specified.get_dbname().is_none() {
            server.config.dbname(config.get_dbname().or(config.get_user()).unwrap_or_default());
        }
        if specified.get_user().is_none_or(|user| Some(user) == config.get_user()) {
            server.config.user(config.get_user().unwrap_or_default());
            if let (None, Some(password)) = (specified.get_password(), config.get_password()) {
                server.config.password(password);
            }
        }
        if server.ssl.sslmode.is_none() && server.ssl.sslrootcert.is_none() {
            server.config.ssl_mode(config.get_ssl_mode());
            (server.tls, server.ssl) = (first.tls.clone(), first.ssl.clone());
        }
        Ok(server)
    }

    /// Wraps settings built in code; TLS is off unless they enable it.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn from_config(config: Config) -> Result<Self, ConnInfoError> {
        Self::with(config, &Extra::default())
    }

    fn with(mut config: Config, extra: &Extra) -> Result<Self, ConnInfoError> {
        let root = extra.sslrootcert.as_deref().filter(|path| !path.is_empty());
        let (mode, verify) = match extra.sslmode.as_deref() {
            None => (config.get_ssl_mode(), Verify::Nothing),
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            // `allow` tries without TLS first; offering TLS first is the safer order and reaches the same servers.
            Some("allow" | "prefer") => (SslMode::Prefer, Verify::Nothing),
            // libpq: with a root certificate present, `require` behaves like `verify-ca`.
            Some("require") if root.is_some() => (SslMode::Require, Verify::Chain),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Chain),
            Some("verify-full") => (SslMode::Require, Verify::ChainAndName),
            Some(_) => {
                return Err(ConnInfoError::Value {
                    parameter: "sslmode",
                    allowed: "disable, allow, prefer, require, verify-ca, verify-full",
                });
            }
        };
        config.ssl_mode(mode);
        if config.get_application_name().is_none() {
            config.application_name("pycrudapi");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        let root = root.filter(|path| *path != "system").map(PathBuf::from);
        let tls = tls::connector(verify, root.as_deref())?;
        Ok(Self { tls, config, migrator: None, generations: Generations::default(), ssl: extra.clone() })
    }

    /// The same database as the migrating role; `None` if that is the role for requests.
    pub fn as_migrator(&self) -> Option<Self> {
        let migrator = self.migrator.as_ref().filter(|migrator| Some(&*migrator.user) != self.config.get_user())?;
        // A role without a password must not be tried with the other role's password.
        let mut config = self.config.clone();
        config.user(&migrator.user).password(migrator.password.as_deref().unwrap_or_default());
        let (tls, ssl) = (self.tls.clone(), self.ssl.clone());
        Some(Self { config, tls, migrator: None, generations: self.generations.clone(), ssl })
    }

    /// Whether only a primary is accepted.
    pub fn requires_primary(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }

    /// libpq's environment variables for this server, for PostgreSQL's own programs, because command lines are visible to all
    /// users.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let host = |host: &Host| match host {
            Host::Tcp(name) => OsString::from(name),
            Host::Unix(folder) => folder.clone().into_os_string(),
        };
        let hosts = self.config.get_hosts().iter().map(host).collect::<Vec<_>>().join(OsStr::new(","));
        let ports: Vec<String> = self.config.get_ports().iter().map(ToString::to_string).collect();
        let mut variables = vec![("PGHOST", hosts), ("PGPORT", ports.join(",").into())];
        let texts = [
            ("PGUSER", self.config.get_user()),
            ("PGSSLMODE", self.ssl.sslmode.as_deref()),
            ("PGSSLROOTCERT", self.ssl.sslrootcert.as_deref()),
        ];
        variables.extend(texts.into_iter().filter_map(|(name, text)| Some((name, OsString::from(text?)))));
        if let Some(password) = self.config.get_password() {
            variables.push(("PGPASSWORD", OsString::from_vec(password.to_vec())));
        }
        variables.retain(|(_, value)| !value.is_empty());
        variables
    }

    /// The same database with this role for requests; the previous role becomes the migrating one.
    #[must_use]
    pub fn with_request_role(mut self, role: &str) -> Self {
        let user = self.config.get_user().unwrap_or_default().to_owned();
        self.migrator = Some(Migrator { user, password: self.config.get_password().map(<[u8]>::to_vec) });
        self.config.user(role);
        self
    }
}

/// Extracts one parameter if this module handles it; otherwise returns it for tokio-postgres, possibly with a translated value.
fn take(key: &str, value: &str, extra: &mut Extra) -> Result<Option<(String, String)>, ConnInfoError> {
    let keep = |value: &str| Ok(Some((key.to_owned(), value.to_owned())));
    match key {
        "sslmode" => extra.sslmode = Some(value.to_owned()),
        "sslrootcert" => extra.sslrootcert = Some(value.to_owned()),
        // libpq's values for which tokio-postgres has different names.
        "target_session_attrs" => {
            return match value {
                "any" | "prefer-standby" => keep("any"),
                "read-write" | "primary" => keep("read-write"),
                "read-only" | "standby" => keep("read-only"),
                _ => Err(ConnInfoError::Value {
                    parameter: "target_session_attrs",
                    allowed: "any, read-write, read-only, primary, standby, prefer-standby",
                }),
            };
        }
        "fallback_application_name" | "gssencmode" | "client_encoding" | "sslcompression" | "sslsni" => {}
        "sslcert" | "sslkey" | "sslpassword" | "sslcrl" | "passfile" | "service" | "servicefile" | "requirepeer"
        | "krbsrvname" | "require_auth" => return Err(ConnInfoError::Unsupported(key.to_owned())),
        _ => return keep(value),
    }
    Ok(None)
}

/// Removes this module's parameters from a URL's query.
fn split_url(text: &str, extra: &mut Extra) -> Result<String, ConnInfoError> {
    let Some((base, query)) = text.split_once('?') else {
        return Ok(text.to_owned());
    };
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| ConnInfoError::Syntax("a parameter after the question mark has no '='".to_owned()))?;
        let decoded = percent_decode(value)
            .ok_or_else(|| ConnInfoError::Syntax(format!("the value of {key} is not percent-encoded UTF-8")))?;
        match take(key, &decoded, extra)? {
            // The value is passed on unchanged unless it was translated.
            Some((key, new)) if new == decoded => kept.push(format!("{key}={value}")),
            Some((key, new)) => kept.push(format!("{key}={new}")),
            None => {}
        }
    }
    Ok(if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(hexadecimal::byte(&digits)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Removes this module's parameters from `key = value` pairs, in which a value may be quoted and may contain backslash escapes.
fn split_pairs(text: &str, extra: &mut Extra) -> Result<String, ConnInfoError> {
    let mut kept = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(kept.join(" "));
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(ConnInfoError::Syntax("a key has no '=' after it".to_owned()));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => {
                    return Err(ConnInfoError::Syntax(format!("the value of {key} has no closing quote")));
                }
                None => break,
            }
        }
        if let Some((key, value)) = take(&key, &value, extra)? {
            kept.push(format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::TargetSessionAttrs;

    fn config(text: &str) -> Config {
        ConnInfo::parse(text).map(|info| info.config).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn several_hosts_with_session_attributes_are_kept() {
        let config = config("postgresql://u:p%40ss@a:1,b:2/db?target_session_attrs=primary&sslmode=disable");
        assert_eq!(config.get_hosts(), [Host::Tcp("a".to_owned()), Host::Tcp("b".to_owned())]);
        assert_eq!(config.get_ports(), [1, 2]);
        assert_eq!(config.get_password(), Some("p@ss".as_bytes()));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn a_second_server_has_the_credentials_of_the_first_unless_it_has_its_own() {
        let first = ConnInfo::parse("host=a user=me password=secret dbname=d sslmode=require").expect("an address");
        let server = |text| ConnInfo::parse_with_defaults(text, &first).expect("an address").config;
        let second = server("host=b port=7");
        assert_eq!(second.get_hosts(), [Host::Tcp("b".to_owned())]);
        assert_eq!((second.get_user(), second.get_password()), (Some("me"), Some(&b"secret"[..])));
        assert_eq!((second.get_dbname(), second.get_ssl_mode()), (Some("d"), SslMode::Require));
        let other = server("postgres://other@b/e?sslmode=disable");
        assert_eq!((other.get_user(), other.get_password()), (Some("other"), None));
        assert_eq!((other.get_dbname(), other.get_ssl_mode()), (Some("e"), SslMode::Disable));
    }

    #[test]
    fn pairs_with_quotes_and_escapes_are_parsed_like_libpq_does() {
        let config = config(r"host = h password='it\'s a \\ secret' sslmode=verify-full user=me connect_timeout=7");
        assert_eq!(config.get_password(), Some(r"it's a \ secret".as_bytes()));
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_user(), Some("me"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
    }

    #[test]
    fn an_error_contains_the_parameter_and_never_the_value() {
        for (text, expected) in [
            ("postgres://h/db?sslmode=hunter2", "sslmode"),
            ("host=h target_session_attrs=hunter2", "target_session_attrs"),
            ("host=h sslcert=hunter2", "sslcert"),
            ("host=h password='hunter2", "password"),
            ("postgres://h/db?port=hunter2", "port"),
            ("host=h nonsense=hunter2", "nonsense"),
            ("\"postgres://app:hunter2@h/db\"", "remove the quotes around it"),
        ] {
            let message = ConnInfo::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn a_missing_root_certificate_is_an_error_that_contains_the_path() {
        let message = ConnInfo::parse("host=h sslmode=verify-ca sslrootcert=/nonexistent/ca.pem")
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(message.contains("/nonexistent/ca.pem"), "{message}");
    }
}
