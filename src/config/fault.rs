//! An invalid setting as one sentence: the variable with its value, the reason and an example.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, value_parser};
use thiserror::Error;

use crate::masked::masked;

/// Examples of settings that have no default.
const EXAMPLES: &[(&str, &str)] = &[
    ("ALLOWED_HOSTS", "api.example.com,*.example.com"),
    ("AUTH_ANONYMOUS_SCOPES", "*:read"),
    ("AUTH_AUDIENCE", "https://api.example.com"),
    ("AUTH_CA_FILE", "/etc/pycrudapi/ca.pem"),
    ("AUTH_CLIENT_ID", "pycrudapi-pages"),
    ("AUTH_CLIENT_SCOPE", "openid passengers:read"),
    ("AUTH_ISSUER", "https://id.example.com"),
    ("AUTH_JWKS_FILE", "/etc/pycrudapi/jwks.json"),
    ("AUTH_JWKS_URL", "https://id.example.com/keys"),
    ("AUTH_SCOPE_CLAIM", "realm_access.roles"),
    ("AUTH_SCOPE_MAP", "reader=*:read,clerk=passengers:*"),
    ("CORS_ALLOW_ORIGINS", "https://app.example"),
    ("DATABASE_READ_URL", "postgres://user:password@replica.example:5432/name"),
    ("DATABASE_URL", "postgres://user:password@db.example:5432/name"),
    ("HEALTHCHECK_URL", "http://127.0.0.1:8080/readyz"),
    ("HISTORY_RETENTION", "90d"),
    ("NGINX_STATUS_PORT", "8081"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/pycrudapi/ca.pem"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector:4318"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=value"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel-collector:4318/v1/traces"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=value"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10000"),
    ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production"),
    ("OTEL_SERVICE_NAME", "passengers"),
    ("PARENT_PID", "1234"),
    ("POSTGRES_DB", "passengers"),
    ("POSTGRES_HOST", "db.example"),
    ("POSTGRES_USER", "pycrudapi"),
    ("REDIS_URL", "redis://:password@redis.example:6379/0"),
    ("TLS_CERT", "/etc/pycrudapi/tls/tls.crt"),
    ("TLS_DIR", "/var/lib/pycrudapi/tls"),
    ("TLS_KEY", "/etc/pycrudapi/tls/tls.key"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8"),
    ("UPSTREAM", "api1:8080,api2:8080"),
];

/// A setting that cannot be used. Exits the program with status 2.
#[derive(Debug, Error)]
#[error("{name}{}: {reason}{}", shown("=", value), shown(&format!("; example: {name}="), example))]
pub struct WrongSetting {
    name: String,
    value: String,
    reason: String,
    example: String,
}

fn shown(before: &str, text: &str) -> String {
    // On one line, whatever it contains.
    let visible = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    if text.is_empty() {
        String::new()
    } else {
        text.chars().map(visible).fold(before.to_owned(), |all, one| all + &one)
    }
}

impl WrongSetting {
    /// A value that was parsed but is not acceptable; an empty one is missing.
    pub fn new(name: &str, value: &(impl ToString + ?Sized), reason: &str, example: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: masked(&value.to_string()),
            reason: reason.to_owned(),
            example: example.to_owned(),
        }
    }

    /// As [`Self::new`], for a setting without a default.
    pub(super) fn of(name: &str, value: &(impl ToString + ?Sized), reason: &str) -> Self {
        Self::new(name, value, reason, example(name))
    }
}

fn example(name: &str) -> &'static str {
    EXAMPLES.iter().find(|(known, _)| *known == name).map_or("", |(_, example)| example)
}

/// Converts clap's error; none if it is not about a setting.
pub fn wrong_setting(command: &Command, error: &clap::Error) -> Option<WrongSetting> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (argument, value, reason) = match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let refused = text(ContextKind::InvalidArg)?;
            let flag = refused.strip_prefix("--")?.split(' ').next()?;
            let argument = arguments(command).find(|argument| argument.get_long() == Some(flag))?;
            let reason = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(words)) => format!("expected {}", words.join(" or ")),
                _ => match std::error::Error::source(error)?.to_string() {
                    reason if reason.contains("invalid digit") => "expected a whole number without a unit".to_owned(),
                    reason => reason,
                },
            };
            (argument, text(ContextKind::InvalidValue).unwrap_or_default(), reason)
        }
        ErrorKind::InvalidUtf8 => {
            let paths = value_parser!(PathBuf).type_id();
            let argument = arguments(command)
                .filter(|argument| argument.get_value_parser().type_id() != paths)
                .find(|argument| value_of(argument).is_some_and(|value| value.to_str().is_none()))?;
            (argument, value_of(argument)?.to_string_lossy().into_owned(), "expected UTF-8".to_owned())
        }
        _ => return None,
    };
    let name = argument.get_env()?.to_str()?;
    let default = argument.get_default_values().first().map(|value| value.to_string_lossy());
    let example = default.as_deref().unwrap_or_else(|| example(name));
    Some(WrongSetting::new(name, &value, &format!("{reason}{}", surrounded(&value)), example))
}

/// A variable whose value is in quotes although every value is valid: a path, which would be the name of a folder in the
/// current one, and a name or URL, which would lead nowhere. Passwords may have quotes.
pub fn quoted_value(command: &Command) -> Option<WrongSetting> {
    const NAMES: [&str; 4] = ["_DB", "_HOST", "_URL", "_USER"];
    let paths = value_parser!(PathBuf).type_id();
    arguments(command).find_map(|argument| {
        let value = value_of(argument)?.into_string().ok().filter(|value| is_quoted(value))?;
        let name = argument.get_env()?.to_str()?;
        let hint = surrounded(&value);
        if argument.get_value_parser().type_id() == paths {
            let bare = value.trim_matches(['"', '\'']);
            return Some(WrongSetting::new(name, &value, &format!("expected a path{hint}"), bare));
        }
        // A URL may contain a password, so that it is not repeated.
        let shown = if name.ends_with("_URL") { "" } else { &value };
        let is_named = name == "LOG" || NAMES.iter().any(|end| name.ends_with(end));
        is_named.then(|| WrongSetting::of(name, shown, &format!("expected a value without quotes{hint}")))
    })
}

fn is_quoted(value: &str) -> bool {
    let is_in = |quote: char| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    is_in('"') || is_in('\'')
}

/// A hint if quotes or blanks surround a value: `docker run --env-file` takes them as part of it.
fn surrounded(value: &str) -> &'static str {
    if is_quoted(value) {
        "; remove the quotes, which are part of the value here"
    } else if value != value.trim() {
        "; remove the blanks around it"
    } else {
        ""
    }
}

fn value_of(argument: &Arg) -> Option<std::ffi::OsString> {
    argument.get_env().and_then(std::env::var_os)
}

/// The arguments of a command and of its subcommands.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments())
}
