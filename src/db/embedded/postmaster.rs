//! How the postmaster of our cluster is started, and what it says when it fails.
//!
//! Refuses settings that would open the cluster to the network or lose what was committed.
//! Invariant: settings are given on the command line, so a cluster made by an older version of
//! this program runs with today's.

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

/// May be altered by `extra_settings`.
const DEFAULTS: [(&str, &str); 6] = [
    // What a backup that stays away has not fetched yet: it must not fill the disk.
    ("max_slot_wal_keep_size", "4GB"),
    ("max_connections", "100"),
    // A passenger list is small; the default of twice this is as much again at every start.
    ("shared_buffers", "64MB"),
    // Refused statements are answered to their client. Here they would only fill the disk, with
    // what people sent in them.
    ("log_min_messages", "log"),
    ("log_checkpoints", "off"),
    ("timezone", "UTC"),
];

/// May not: the last one given wins.
const INVARIANTS: [(&str, &str); 7] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
];

/// Recovery after a crash replays at most `max_wal_size`, 1 GiB: a minute on a slow disk.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(300);

/// How much of the log an error shows.
const TAIL_BYTES: u64 = 2048;

/// Everything needed to start the postmaster, again and again.
#[derive(Debug)]
pub(super) struct Postmaster {
    pub program: PathBuf,
    pub directory: DataDirectory,
    pub socket_dir: PathBuf,
    pub settings: Vec<(String, String)>,
    /// How long a start may take.
    pub ready_within: Duration,
}

/// A postmaster just spawned, and where its part of the log begins.
pub(super) struct Spawned {
    pub child: Child,
    pub log_start: u64,
}

impl Postmaster {
    /// Clears away what an earlier one left: live processes, its claim, its socket.
    pub fn clear(&self) -> Result<(), EmbeddedError> {
        let data = self.directory.data();
        orphans::end(&data, self.directory.account)?;
        postmaster_file::disown(&data)?;
        // The socket's lock file has the same fault as the claim, and nothing worth keeping.
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

    /// Spawns it; the calling thread must outlive it.
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

    /// Whether this pid has claimed the cluster and accepts connections.
    pub fn is_ready(&self, pid: u32) -> bool {
        let claim = postmaster_file::read(&self.directory.data());
        claim.is_some_and(|claim| claim.ready && u32::try_from(claim.pid) == Ok(pid))
    }

    /// The end of what was logged from `start` on.
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

/// The setting is a list: quoted, a path may hold commas and blanks.
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
    fn extra_settings_beat_defaults_but_not_invariants() {
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
