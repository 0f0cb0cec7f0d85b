//! Types and parsers of single setting values. An error states what was expected, with an example.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Pid;

use super::error::ConfigError;
use crate::server::listener::ListenAddr;
use crate::short_file::{self, SECRET_MAX_BYTES};

/// Text that must not appear in logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether an address contains a password.
    pub fn holds_password(&self) -> bool {
        let authority = self.0.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
        authority.is_some_and(|(user, _)| user.contains(':')) || self.0.contains("password") || self.0.contains("pass=")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Address of the metrics listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsListen {
    /// No metrics are served.
    Off,
    /// `host:port`.
    At(String),
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Off => "off",
            Self::At(address) => address,
        })
    }
}

impl FromStr for MetricsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<ListenAddr>() {
            _ if text == "off" => Ok(Self::Off),
            Ok(ListenAddr::Tcp(address)) => Ok(Self::At(address)),
            _ => Err("expected host:port or off, for example 127.0.0.1:9464".to_owned()),
        }
    }
}

/// Parses a process id.
///
/// # Errors
/// If it is not a positive number.
pub fn process_id(text: &str) -> Result<Pid, String> {
    let number = text.parse().ok().filter(|number| *number > 0).and_then(Pid::from_raw);
    number.ok_or_else(|| "expected a process id".to_owned())
}

/// Half of the processors available to this process, but at least one.
pub fn default_worker_threads() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors / 2).unwrap_or(256).clamp(1, 256)
}

/// Parses a secret, which may be any text except the empty one.
///
/// # Errors
/// If it is empty.
pub fn secret(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() { Err("expected a value") } else { Ok(Secret(text.to_owned())) }
}

/// Reads a secret from a file.
///
/// # Errors
/// If the file cannot be read.
pub fn secret_in(setting: &'static str, path: &Path, instead: &'static str) -> Result<String, ConfigError> {
    match short_file::read_text(path, SECRET_MAX_BYTES) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(reason) => Err(ConfigError::SecretFile { setting, path: path.to_path_buf(), reason, instead }),
    }
}

/// Parses whole milliseconds within bounds.
///
/// # Errors
/// A message that states the bounds.
pub fn millis<const MIN: u64, const MAX: u64>(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) if (MIN..=MAX).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("expected whole milliseconds between {MIN} and {MAX}")),
    }
}

/// Parses a number of bytes within bounds, with an optional binary unit.
///
/// # Errors
/// A message that states the bounds.
pub fn bytes<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let number = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let total = number.and_then(|(number, shift)| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    total.filter(|total| (MIN..=MAX).contains(total)).ok_or_else(|| {
        format!("expected between {MIN} and {MAX} bytes, or a number with KiB, MiB or GiB, for example 64MiB")
    })
}
