//! Where the cluster really is, and the names below it.
//!
//! Refuses to start an empty cluster when the one asked for is there but out of reach: that
//! would look like lost data. Invariant: the account can enter `home`, whose path is canonical,
//! the same in every start from the same place.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::account::Account;
use super::error::{self, EmbeddedError};
use super::files;

/// The one folder we make in `DATA_DIR`, which may hold other things and keeps its mode.
/// Not `postgres`: there are systems whose own cluster is /var/lib/postgres/data.
const FOLDER: &str = "embedded";
/// What PostgreSQL calls its socket on the default port, with the slash before it.
const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432".len();
/// The longest path that fits `sun_path` with its final zero, on Linux and on macOS.
const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "macos") { 103 } else { 107 };
/// Where sockets with long paths go. Not `TMPDIR`, which may itself be long.
const SHORT_DIR: &str = "/tmp";
/// A log this long is not added to by a restart.
const LOG_BYTES: u64 = 1 << 20;

/// A cluster's folder and who runs it.
#[derive(Clone, Debug)]
pub(super) struct DataDirectory {
    pub home: PathBuf,
    /// None: as ourselves.
    pub account: Option<Account>,
}

impl DataDirectory {
    /// The requested directory, or one of its own below `fallback` if root asked for a place
    /// its account cannot enter. Creates nothing.
    pub fn choose(requested: &Path, fallback: &Path, default: Option<Account>) -> Result<Self, EmbeddedError> {
        // Before anything else: a file looks closed to every account, and is no reason to go elsewhere.
        if let Some(file) = requested.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            return Err(EmbeddedError::NoDirectory { path: file.to_owned() });
        }
        let requested = canonical(requested)?;
        let home = requested.join(FOLDER);
        let Some(default) = default else {
            return Ok(Self { home, account: None });
        };
        let asked = Self::of_cluster(home, default);
        let instead =
            Self::of_cluster(canonical(fallback)?.join(fingerprint(requested.as_os_str())).join(FOLDER), default);
        let runner = asked.account.unwrap_or(default);
        match runner.first_closed(&asked.home) {
            // One that fell back stays there when the way to the other opens: its data is there.
            None if asked.has_cluster() || !instead.has_cluster() => Ok(asked),
            Some(closed) if asked.has_cluster() => {
                Err(EmbeddedError::Closed { home: asked.home, closed, uid: runner.uid })
            }
            closed => {
                warn!(
                    postgres.dir = %instead.home.display(),
                    requested = %requested.display(),
                    closed = closed.map(|path| path.display().to_string()),
                    postgres.uid = runner.uid,
                    "the requested data directory is, or was, closed to postgresql's account, \
                     using another"
                );
                Ok(instead)
            }
        }
    }

    fn of_cluster(home: PathBuf, default: Account) -> Self {
        let account = Account::owner_of(&home.join("data")).unwrap_or(default);
        Self { home, account: Some(account) }
    }

    /// Whether a cluster was made here.
    pub fn has_cluster(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    /// Whom the processes run as.
    pub fn uid(&self) -> u32 {
        self.account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid)
    }

    /// The cluster itself.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The file that takes PostgreSQL's standard error.
    pub fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    /// Makes the folder. Root's stays root's, so that the account cannot put links in the way
    /// of the files root writes there.
    pub fn create(&self) -> Result<(), EmbeddedError> {
        match self.account {
            Some(_) => files::create_dirs(&self.home),
            None => {
                files::create_dirs(self.home.parent().unwrap_or(&self.home))?;
                files::private_dir(&self.home, None)
            }
        }
    }

    /// Starts an empty log, keeping the previous one and no more.
    pub fn rotate_log(&self) -> Result<(), EmbeddedError> {
        let log = self.log();
        match fs::rename(&log, self.home.join("postgres.log.1")) {
            Err(failure) if failure.kind() != ErrorKind::NotFound => Err(error::file("rename", &log)(failure)),
            _ => Ok(()),
        }
    }

    /// Opens the log to append to; what dies over and over does not fill the disk with it.
    pub fn open_log(&self) -> Result<File, EmbeddedError> {
        if fs::metadata(self.log()).is_ok_and(|log| log.len() > LOG_BYTES) {
            self.rotate_log()?;
        }
        files::open_to_write(&self.log())
    }

    /// The directory of the socket, private and with a path short enough.
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

    /// Leaves nothing in a directory others look into.
    pub fn remove_socket_dir(&self, dir: &Path) {
        if !dir.starts_with(&self.home) {
            // Not empty means something is still in use; the next start takes care of it.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The absolute path without links, of which the last parts need not exist yet.
fn canonical(path: &Path) -> Result<PathBuf, EmbeddedError> {
    let absolute = std::path::absolute(path).map_err(error::file("find", path))?;
    for ancestor in absolute.ancestors() {
        match fs::canonicalize(ancestor) {
            Ok(real) => {
                let rest = absolute.strip_prefix(ancestor).expect("an ancestor is a prefix");
                // Joining an empty path would leave a slash at the end.
                return Ok(if rest == Path::new("") { real } else { real.join(rest) });
            }
            Err(failure) if failure.kind() == ErrorKind::NotFound => {}
            Err(failure) => return Err(error::file("find", ancestor)(failure)),
        }
    }
    Ok(absolute)
}

/// A short name for a path, the same for ever: FNV-1a, since the standard library's hashes may
/// change with the compiler and the data would then seem lost.
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
