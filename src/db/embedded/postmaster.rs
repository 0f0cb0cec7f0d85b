//! How the cluster's postmaster is started, and what it logged when it fails.
//!
//! Settings that would open the cluster to the network or lose committed data are overridden. Invariant: settings are passed on
//! the command line, so a cluster created by an older version of this program runs with the current ones.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::{orphans, postmaster_file, spawn};

/// Can be overridden by `extra_settings`.
const DEFAULTS: [(&str, &str); 6] = [
    // WAL that a disconnected backup has not fetched yet: it must not fill the disk.
    ("max_slot_wal_keep_size", "4GB"),
    ("max_connections", "100"),
    // The tables are small; the default of twice this size makes every start slower.
    ("shared_buffers", "64MB"),
    // Errors of statements are returned to their client. In the log they would only fill the disk, with data from the
    // statements.
    ("log_min_messages", "log"),
    ("log_checkpoints", "off"),
    ("timezone", "UTC"),
];

/// Cannot be overridden: the last value of a setting takes effect.
const INVARIANTS: [(&str, &str); 7] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
];

/// Crash recovery replays at most `max_wal_size`, 1 GiB: a minute on a slow disk.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(300);

/// How much of the log an error includes.
const TAIL_BYTES: u64 = 2048;

/// Everything needed to start the postmaster, repeatedly.
#[derive(Debug)]
pub(super) struct Postmaster {
    pub program: PathBuf,
    pub directory: DataDirectory,
    pub socket_dir: PathBuf,
    pub settings: Vec<(String, String)>,
    /// Time limit of a start.
    pub ready_within: Duration,
}

/// A postmaster just spawned, and the offset in the log where its output begins.
pub(super) struct Spawned {
    pub child: Child,
    pub log_start: u64,
}

impl Postmaster {
    /// Cleans up after a previous postmaster: its processes, its pid file, its socket.
    pub fn clear(&self) -> Result<(), EmbeddedError> {
        let data = self.directory.data();
        orphans::end(&data, self.directory.account)?;
        postmaster_file::disown(&data)?;
        // The socket's lock file has the same problem as the pid file, and nothing that must be kept.
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            let path = self.socket_dir.join(name);
            match fs::remove_file(&path) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => {
                    return Err(error::file("remove", &path)(failure));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Spawns the postmaster; the calling thread must outlive it.
    pub fn spawn(&self) -> Result<Spawned, EmbeddedError> {
        let mut log = self.directory.open_log()?;
        let log_start = log.seek(SeekFrom::End(0)).map_err(error::file("read", &self.directory.log()))?;
        let data = self.directory.data();
        let mut command = spawn::command(&self.program, &data, self.directory.account, Signal::INT);
        command.arg("-D").arg(&data).stdout(Stdio::null()).stderr(log);
        for setting in self.arguments() {
            command.arg("-c").arg(setting);
        }
        let spawned = command.spawn();
        let child = spawned.map_err(|source| EmbeddedError::Spawn {
            program: self.program.clone(),
            uid: self.directory.uid(),
            source,
        })?;
        Ok(Spawned { child, log_start })
    }

    fn arguments(&self) -> Vec<OsString> {
        let pair = |(name, value): &(&str, &str)| format!("{name}={value}").into();
        let extra = self.settings.iter().map(|(name, value)| format!("{name}={value}").into());
        let mut arguments: Vec<OsString> = DEFAULTS.iter().map(pair).chain(extra).collect();
        arguments.extend(INVARIANTS.iter().map(pair));
        arguments.push(socket_setting(&self.socket_dir));
        arguments
    }

    /// Whether the postmaster with this pid owns the cluster and accepts connections.
    pub fn is_ready(&self, pid: u32) -> bool {
        let claim = postmaster_file::read(&self.directory.data());
        claim.is_some_and(|claim| claim.ready && u32::try_from(claim.pid) == Ok(pid))
    }

    /// The end of the log's part after `start`.
    pub fn log_tail(&self, start: u64) -> String {
        let read = || -> io::Result<String> {
            let mut log = fs::File::open(self.directory.log())?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_else(|failure| format!("(cannot be read: {failure})"))
    }
}

/// The setting is a list: when quoted, a path can contain commas and spaces.
fn socket_setting(dir: &Path) -> OsString {
    let mut setting = b"unix_socket_directories=\"".to_vec();
    for byte in dir.as_os_str().as_bytes() {
        setting.push(*byte);
        if *byte == b'"' {
            setting.push(b'"');
        }
    }
    setting.push(b'"');
    OsString::from_vec(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_settings_override_defaults_but_not_invariants() {
        let postmaster = Postmaster {
            program: PathBuf::new(),
            directory: DataDirectory { home: PathBuf::from("/h"), account: None },
            socket_dir: PathBuf::from("/a, \"b\""),
            settings: vec![("max_connections".into(), "7".into()), ("fsync".into(), "off".into())],
            ready_within: READY_WITHIN,
        };
        let arguments = postmaster.arguments();
        let last = |name: &str| arguments.iter().rfind(|text| text.to_string_lossy().starts_with(name));
        assert_eq!(last("max_connections=").expect("given"), "max_connections=7");
        assert_eq!(last("fsync=").expect("given"), "fsync=on");
        assert_eq!(last("unix_socket_directories=").expect("given"), r#"unix_socket_directories="/a, ""b""""#);
    }
}
