//! What a setting's text may be: types and readers of single values. A refusal says what was expected, with an example.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Pid;

use super::error::ConfigError;
use crate::server::listener::ListenAddr;
use crate::short_file::{self, SECRET_MAX_BYTES};

/// A text that must not reach logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for whoever needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether an address has a password in it.
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

/// The number of a process.
///
/// # Errors
/// When it cannot be one.
pub fn process_id(text: &str) -> Result<Pid, String> {
    let number = text.parse().ok().filter(|number| *number > 0).and_then(Pid::from_raw);
    number.ok_or_else(|| "expected the number of a process".to_owned())
}

/// Half of the processors that this process may use, and at least one.
pub fn default_worker_threads() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors / 2).unwrap_or(256).clamp(1, 256)
}

/// Any text but the empty one, to be kept secret.
///
/// # Errors
/// A sentence that says so.
pub fn secret(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() { Err("expected a value") } else { Ok(Secret(text.to_owned())) }
}

/// The secret that a file holds.
///
/// # Errors
/// When the file cannot be read.
pub fn secret_in(setting: &'static str, path: &Path, instead: &'static str) -> Result<String, ConfigError> {
    match short_file::read_text(path, SECRET_MAX_BYTES) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(reason) => Err(ConfigError::SecretFile { setting, path: path.to_path_buf(), reason, instead }),
    }
}

/// Reads whole milliseconds within bounds.
///
/// # Errors
/// A sentence that names the bounds.
pub fn millis<const MIN: u64, const MAX: u64>(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) if (MIN..=MAX).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("expected whole milliseconds between {MIN} and {MAX}")),
    }
}

/// Reads a number of bytes within bounds, with a binary unit if it has one.
///
/// # Errors
/// A sentence that names the bounds.
pub fn bytes<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let number = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let total = number.and_then(|(number, shift)| number.parse::<u64>().ok()?.checked_mul(1 << shift));
    total.filter(|total| (MIN..=MAX).contains(total)).ok_or_else(|| {
        format!("expected between {MIN} and {MAX} bytes, or a number with KiB, MiB or GiB, for example 64MiB")
    })
}
