//! The actual location of the cluster, and the paths below it.
//!
//! An empty cluster is never started if the requested one exists but is inaccessible: that would look like lost data.
//! Invariant: the account can enter `home`, whose path is canonical and the same in every start with the same settings.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::account::Account;
use super::error::{self, EmbeddedError};
use super::files;

/// The only directory that this program creates in `DATA_DIR`, which may contain other files and keeps its mode. It is not
/// called `postgres`, because some systems have their own cluster in /var/lib/postgres/data.
const FOLDER: &str = "embedded";
/// Length of PostgreSQL's socket name on the default port, with the leading slash.
const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432".len();
/// Longest path that fits in `sun_path` with its terminating zero, on Linux and on macOS.
const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "macos") { 103 } else { 107 };
/// Where sockets whose path would be too long are created. Not `TMPDIR`, which may itself be long.
const SHORT_DIR: &str = "/tmp";
/// A restart does not append to a log longer than this.
const LOG_BYTES: u64 = 1 << 20;

/// A cluster's directory and the account that runs it.
#[derive(Clone, Debug)]
pub(super) struct DataDirectory {
    pub home: PathBuf,
    /// None: the current user.
    pub account: Option<Account>,
}

impl DataDirectory {
    /// Chooses the requested directory, or a specific one below `fallback` if root requested a directory that its account
    /// cannot enter. Creates nothing.
    pub fn choose(requested: &Path, fallback: &Path, default: Option<Account>) -> Result<Self, EmbeddedError> {
        // Checked first: a file looks inaccessible to every account, but must not lead to the fallback.
        if let Some(file) = requested.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            return Err(EmbeddedError::NoDirectory { path: file.to_owned() });
        }
        let requested = canonical(requested)?;
        let home = requested.join(FOLDER);
        let Some(default) = default else {
            return Ok(Self { home, account: None });
        };
        let preferred = Self::of_cluster(home, default);
        let alternative =
            Self::of_cluster(canonical(fallback)?.join(fingerprint(requested.as_os_str())).join(FOLDER), default);
        let runner = preferred.account.unwrap_or(default);
        match runner.first_closed(&preferred.home) {
            // A cluster in the fallback directory stays in use if the requested one becomes accessible, because the data is
            // there.
            None if preferred.has_cluster() || !alternative.has_cluster() => Ok(preferred),
            Some(closed) if preferred.has_cluster() => {
                Err(EmbeddedError::Closed { home: preferred.home, closed, uid: runner.uid })
            }
            closed => {
                warn!(
                    postgres.dir = %alternative.home.display(),
                    requested = %requested.display(),
                    closed = closed.map(|path| path.display().to_string()),
                    postgres.uid = runner.uid,
                    "the requested data directory is, or was, closed to postgresql's account, \
                     using another"
                );
                Ok(alternative)
            }
        }
    }

    fn of_cluster(home: PathBuf, default: Account) -> Self {
        let account = Account::owner_of(&home.join("data")).unwrap_or(default);
        Self { home, account: Some(account) }
    }

    /// Whether this directory has a cluster.
    pub fn has_cluster(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    /// The uid that the processes run as.
    pub fn uid(&self) -> u32 {
        self.account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid)
    }

    /// The cluster's directory.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The file for PostgreSQL's standard error.
    pub fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// Creates the directory. If root creates it, it remains root's, so that the account cannot place links where root writes
    /// files.
    pub fn create(&self) -> Result<(), EmbeddedError> {
        match self.account {
            Some(_) => files::create_dirs(&self.home),
            None => {
                files::create_dirs(self.home.parent().unwrap_or(&self.home))?;
                files::private_dir(&self.home, None)
            }
        }
    }

    /// Starts an empty log, keeping only the previous one.
    pub fn rotate_log(&self) -> Result<(), EmbeddedError> {
        let log = self.log();
        match fs::rename(&log, self.home.join("postgres.log.1")) {
            Err(failure) if failure.kind() != ErrorKind::NotFound => Err(error::file("rename", &log)(failure)),
            _ => Ok(()),
        }
    }

    /// Opens the log for appending; rotates it if it is long, so that repeated crashes do not fill the disk.
    pub fn open_log(&self) -> Result<File, EmbeddedError> {
        if fs::metadata(self.log()).is_ok_and(|log| log.len() > LOG_BYTES) {
            self.rotate_log()?;
        }
        files::open_to_write(&self.log())
    }

    /// Creates the directory of the socket, private and with a path that is short enough.
    pub fn create_socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let dir = self.socket_dir();
        files::private_dir(&dir, self.account)?;
        Ok(dir)
    }

    fn socket_dir(&self) -> PathBuf {
        let dir = self.home.join("run");
        if dir.as_os_str().len() + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES {
            return dir;
        }
        let name = format!("pycrudapi-{}", fingerprint(self.home.as_os_str()));
        Path::new(SHORT_DIR).join(name)
    }

    /// Removes a socket directory outside of `home`.
    pub fn remove_socket_dir(&self, dir: &Path) {
        if !dir.starts_with(&self.home) {
            // If it is not empty, it is still in use; the next start cleans it up.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The absolute path without links; its last components need not exist.
fn canonical(path: &Path) -> Result<PathBuf, EmbeddedError> {
    let absolute = std::path::absolute(path).map_err(error::file("find", path))?;
    for ancestor in absolute.ancestors() {
        match fs::canonicalize(ancestor) {
            Ok(real) => {
                let rest = absolute.strip_prefix(ancestor).expect("an ancestor is a prefix");
                // Joining an empty path would add a trailing slash.
                return Ok(if rest == Path::new("") { real } else { real.join(rest) });
            }
            Err(failure) if failure.kind() == ErrorKind::NotFound => {}
            Err(failure) => return Err(error::file("find", ancestor)(failure)),
        }
    }
    Ok(absolute)
}

/// A short, permanently stable name for a path: FNV-1a, because the standard library's hashes may change with the compiler, and
/// the data would then appear lost.
fn fingerprint(path: &OsStr) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", path.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_never_changes() {
        // The published test vector of FNV-1a for "foobar".
        assert_eq!(fingerprint(OsStr::new("foobar")), "85944171f73967e8");
    }

    #[test]
    fn a_socket_path_of_exactly_the_limit_stays_in_the_folder() {
        let directory =
            |bytes: usize| DataDirectory { home: PathBuf::from(format!("/{}", "d".repeat(bytes - 1))), account: None };
        let room = SOCKET_PATH_BYTES - "/run".len() - SOCKET_NAME_BYTES;
        assert_eq!(directory(room).socket_dir(), directory(room).home.join("run"));
        let short = directory(room + 1).socket_dir();
        assert!(short.starts_with("/tmp"), "{}", short.display());
        assert_ne!(short, directory(room + 2).socket_dir(), "two clusters share a socket directory");
    }

    #[test]
    fn a_path_is_canonical_before_it_exists() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let real = root.path().join("real");
        fs::create_dir(&real).expect("mkdir");
        std::os::unix::fs::symlink(&real, root.path().join("link")).expect("symlink");
        let found = canonical(&root.path().join("link/new/deep")).expect("canonical");
        assert_eq!(found, fs::canonicalize(&real).expect("canonical").join("new/deep"));
    }
}
