//! Where the database is: libpq-style URLs and key/value strings, read whole before anything connects.
//!
//! tokio-postgres reads most of libpq's parameters. This module reads the ones it does not know (`sslmode=verify-full`,
//! `sslrootcert`, …) and hands it the rest. The texts of its errors name the parameter and never the value, which may
//! be a password.
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

use super::term::Terms;
use super::tls::{self, TlsError, Verify};
use crate::hexadecimal;

/// A connection attempt is given up after this long when the settings say nothing else.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything needed to open a connection.
#[derive(Clone)]
pub struct ConnInfo {
    /// Addresses, credentials and options.
    pub config: Config,
    /// How a TLS session is opened and verified.
    pub tls: MakeRustlsConnect,
    /// Who migrates the same database, when it is somebody else.
    pub migrator: Option<Migrator>,
    /// How long sessions may be used.
    pub terms: Terms,
    /// What was asked of TLS, for programs that speak libpq.
    ssl: Extra,
}

/// A role that may make and change tables.
#[derive(Clone)]
pub struct Migrator {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Option<Vec<u8>>,
}

/// Whether a text means a database, right or wrong, and not a path: a URL, or pairs whose first has a name of libpq's.
pub fn is_conninfo(text: &str) -> bool {
    const NAMES: [&str; 8] = ["dbname", "host", "hostaddr", "password", "port", "service", "sslmode", "user"];
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
        || text.split_once('=').is_some_and(|(name, _)| NAMES.contains(&name.trim()))
}

/// Why connection settings were refused; never contains a value.
#[derive(Debug, Error)]
pub enum ConnInfoError {
    /// The text is neither a URL nor key/value pairs.
    #[error("is not a PostgreSQL URL or key/value string: {0}; example: postgres://user:password@db.example:5432/name")]
    Syntax(String),
    /// A parameter's value is not one of those allowed.
    #[error("has an unknown value for {parameter}; allowed: {allowed}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// What it takes.
        allowed: &'static str,
    },
    /// A parameter of libpq that this program does not honour.
    #[error("sets {0}, which is not supported here; remove it")]
    Unsupported(String),
    /// Certificates could not be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The parameters that this module reads itself.
#[derive(Clone, Default)]
struct Extra {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl ConnInfo {
    /// Reads a libpq-style URL or key/value string.
    ///
    /// # Errors
    /// When the text cannot be understood, asks for something unsupported, or names certificates that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ConnInfoError> {
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

    /// Reads the address of another server of the same cluster: what the text does not say is as for the first.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_beside(text: &str, first: &Self) -> Result<Self, ConnInfoError> {
        let mut beside = Self::parse(text)?;
        let (said, config) = (beside.config.clone(), &first.config);
        if said.get_dbname().is_none() {
            beside.config.dbname(config.get_dbname().or(config.get_user()).unwrap_or_default());
        }
        if said.get_user().is_none_or(|user| Some(user) == config.get_user()) {
            beside.config.user(config.get_user().unwrap_or_default());
            if let (None, Some(password)) = (said.get_password(), config.get_password()) {
                beside.config.password(password);
            }
        }
        if beside.ssl.sslmode.is_none() && beside.ssl.sslrootcert.is_none() {
            beside.config.ssl_mode(config.get_ssl_mode());
            (beside.tls, beside.ssl) = (first.tls.clone(), first.ssl.clone());
        }
        Ok(beside)
    }

    /// Wraps settings built in code; TLS is off unless they ask for it.
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
        Ok(Self { tls, config, migrator: None, terms: Terms::default(), ssl: extra.clone() })
    }

    /// The same database as whoever migrates it; `None` when that is the role that requests work as.
    pub fn as_migrator(&self) -> Option<Self> {
        let migrator = self.migrator.as_ref().filter(|migrator| Some(&*migrator.user) != self.config.get_user())?;
        // A role without a password must not be tried with the other's.
        let mut config = self.config.clone();
        config.user(&migrator.user).password(migrator.password.as_deref().unwrap_or_default());
        let (tls, ssl) = (self.tls.clone(), self.ssl.clone());
        Some(Self { config, tls, migrator: None, terms: self.terms.clone(), ssl })
    }

    /// Whether only a server that takes changes will do.
    pub fn wants_primary(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }

    /// The same server for PostgreSQL's own programs: libpq's variables, since command lines are shown to everybody.
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

    /// The same database with requests working as this role, and migrations as the role of before.
    #[must_use]
    pub fn with_requests_as(mut self, role: &str) -> Self {
        let user = self.config.get_user().unwrap_or_default().to_owned();
        self.migrator = Some(Migrator { user, password: self.config.get_password().map(<[u8]>::to_vec) });
        self.config.user(role);
        self
    }
}

/// Takes one parameter if it is ours; `Ok(false)` leaves it to tokio-postgres.
fn take(key: &str, value: &str, extra: &mut Extra) -> Result<Option<(String, String)>, ConnInfoError> {
    let keep = |value: &str| Ok(Some((key.to_owned(), value.to_owned())));
    match key {
        "sslmode" => extra.sslmode = Some(value.to_owned()),
        "sslrootcert" => extra.sslrootcert = Some(value.to_owned()),
        // Names of libpq for what tokio-postgres calls otherwise.
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

/// Removes our parameters from a URL's query.
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
            // The value goes on as it was written, unless a name was translated.
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

/// Removes our parameters from `key = value` pairs, where a value may be quoted and may escape with a backslash.
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
        let beside = |text| ConnInfo::parse_beside(text, &first).expect("an address").config;
        let second = beside("host=b port=7");
        assert_eq!(second.get_hosts(), [Host::Tcp("b".to_owned())]);
        assert_eq!((second.get_user(), second.get_password()), (Some("me"), Some(&b"secret"[..])));
        assert_eq!((second.get_dbname(), second.get_ssl_mode()), (Some("d"), SslMode::Require));
        let other = beside("postgres://other@b/e?sslmode=disable");
        assert_eq!((other.get_user(), other.get_password()), (Some("other"), None));
        assert_eq!((other.get_dbname(), other.get_ssl_mode()), (Some("e"), SslMode::Disable));
    }

    #[test]
    fn pairs_with_quotes_and_escapes_are_read_like_libpq_reads_them() {
        let config = config(r"host = h password='it\'s a \\ secret' sslmode=verify-full user=me connect_timeout=7");
        assert_eq!(config.get_password(), Some(r"it's a \ secret".as_bytes()));
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_user(), Some("me"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
    }

    #[test]
    fn a_fault_names_the_parameter_and_never_the_value() {
        for (text, expected) in [
            ("postgres://h/db?sslmode=hunter2", "sslmode"),
            ("host=h target_session_attrs=hunter2", "target_session_attrs"),
            ("host=h sslcert=hunter2", "sslcert"),
            ("host=h password='hunter2", "password"),
            ("postgres://h/db?port=hunter2", "port"),
            ("host=h nonsense=hunter2", "nonsense"),
        ] {
            let message = ConnInfo::parse(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{text}: {message}");
        }
    }

    #[test]
    fn a_missing_root_certificate_is_an_error_that_names_the_file() {
        let message = ConnInfo::parse("host=h sslmode=verify-ca sslrootcert=/nonexistent/ca.pem")
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(message.contains("/nonexistent/ca.pem"), "{message}");
    }
}
