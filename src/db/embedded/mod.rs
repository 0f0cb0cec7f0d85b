//! A private PostgreSQL server for users and tests that have not set one up.
//!
//! Starts the installed server binaries on a cluster of this program, keeps the server running, and stops it when this process
//! exits. It never downloads anything, listens on TCP, turns fsync off, shares a cluster between two servers, or modifies a
//! cluster that this program did not create. Invariant: while an [`Embedded`] exists, only it holds the cluster's lock, and
//! when [`Embedded::stop`] returns, no process of the cluster is left.
//!
//! Files below `DATA_DIR` (or its replacement, see `data_directory.rs`):
//!
//! ```text
//! embedded/lock             held by the running server, contains its pid
//! embedded/data/            the cluster
//! embedded/data.new/        a cluster being created; discarded at the next start
//! embedded/restoring/       a cluster being restored from a backup; discarded unless a restore is running
//! embedded/upgrading/       a cluster of a newer release; discarded unless an upgrade is running
//! embedded/data-15/         the unchanged cluster from before an upgrade
//! embedded/run/             the socket, unless its path would be too long
//! embedded/postgres.log(.1) PostgreSQL's log of this run and of the previous one
//! ```

mod account;
mod binaries;
mod cluster;
mod data_directory;
mod error;
mod files;
mod lock;
mod orphans;
mod postmaster;
mod postmaster_file;
mod programs;
mod restored;
mod server;
mod spawn;
mod supervisor;
mod upgrade;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tracing::info;

use self::data_directory::DataDirectory;
pub use self::error::EmbeddedError;
use self::lock::Lock;
use self::postmaster::{Postmaster, READY_WITHIN};
pub use self::programs::Programs;
pub use self::restored::Target;
pub use self::server::Server;
use self::supervisor::Supervisor;
pub use self::supervisor::{EMBEDDED_RESTARTS, EMBEDDED_UP};
pub use self::upgrade::Upgrade;

/// Where root's clusters are: the default, and those whose requested directory is inaccessible to PostgreSQL's account.
const SYSTEM_DATA_DIR: &str = "/var/lib/pycrudapi";

/// What to start and where; the caller reads these from the environment.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `DATA_DIR`; created if missing. Everything is stored in its subdirectory `embedded`.
    pub data_dir: PathBuf,
    /// `PG_BIN`: the directory of the PostgreSQL server binaries; if set, no other is tried.
    pub pg_bin: Option<PathBuf>,
    /// `PATH`, which is searched for server binaries and `pg_config`.
    pub search_path: Option<OsString>,
    /// PostgreSQL settings that override this program's defaults, but not those that keep the cluster private and durable.
    pub extra_settings: Vec<(String, String)>,
}

/// A running private PostgreSQL; dropping it stops it.
#[derive(Debug)]
pub struct Embedded {
    directory: DataDirectory,
    socket_dir: PathBuf,
    supervisor: Supervisor,
    lock: Lock,
}

impl Embedded {
    /// Starts PostgreSQL, creating the cluster if there is none, and returns when it accepts connections. Blocks for about a
    /// second for a new cluster, a tenth of that otherwise.
    ///
    /// # Errors
    ///
    /// If there are no binaries, the directory is in use or belongs to another program, or PostgreSQL does not start; the text
    /// contains the remedy, `source()` the system's error.
    pub fn start(options: &Options) -> Result<Self, EmbeddedError> {
        Self::start_or_fall_back(options, Path::new(SYSTEM_DATA_DIR))
    }

    fn start_or_fall_back(options: &Options, fallback: &Path) -> Result<Self, EmbeddedError> {
        let begun = Instant::now();
        let directory = DataDirectory::choose(&options.data_dir, fallback, account::for_root()?)?;
        directory.create()?;
        let lock = Lock::take(&directory)?;

        let data = directory.data();
        let version = cluster::version(&data)?;
        let sources = binaries::Sources {
            pg_bin: options.pg_bin.as_deref(),
            search_path: options.search_path.as_deref(),
            account: directory.account,
        };
        let binaries = binaries::find(&sources, &data, version)?;
        if version.is_none() {
            cluster::create(&directory, &binaries)?;
        }

        let socket_dir = directory.create_socket_dir()?;
        directory.rotate_log()?;
        let supervisor = Supervisor::start(Postmaster {
            program: binaries.dir.join("postgres"),
            directory: directory.clone(),
            socket_dir: socket_dir.clone(),
            settings: options.extra_settings.clone(),
            ready_within: READY_WITHIN,
        })?;
        info!(
            postgres.version = %binaries.version,
            postgres.dir = %directory.home.display(),
            duration_ms = begun.elapsed().as_millis(),
            "embedded postgresql is ready"
        );
        Ok(Self { directory, socket_dir, supervisor, lock })
    }

    /// Connection settings: over the socket, as the superuser, to the database `postgres`.
    pub fn config(&self) -> tokio_postgres::Config {
        config_at(&self.socket_dir)
    }

    /// The directory of all files, after any fallback: `DATA_DIR/embedded`, canonical.
    pub fn data_dir(&self) -> &Path {
        &self.directory.home
    }

    /// Pid of the running postmaster; none while it is being restarted, and after `stop`.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Stops PostgreSQL and releases the directory. Blocks until its processes have exited: a fraction of a second unless it
    /// hangs, at most 20 s. May be called more than once.
    pub fn stop(&self) {
        self.supervisor.stop();
        self.directory.remove_socket_dir(&self.socket_dir);
        self.lock.release();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
    }
}

fn config_at(socket_dir: &Path) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket_dir).user(cluster::SUPERUSER).dbname("postgres");
    config
}

/// Connection settings of the server that another process runs on the same directory; none if there is no such server or it
/// does not accept connections now.
///
/// # Errors
///
/// As [`Embedded::start`].
pub fn running(options: &Options) -> Result<Option<tokio_postgres::Config>, EmbeddedError> {
    let directory = DataDirectory::choose(&options.data_dir, Path::new(SYSTEM_DATA_DIR), account::for_root()?)?;
    Ok(postmaster_file::socket_dir(&directory.data()).map(|socket_dir| config_at(&socket_dir)))
}

/// The directory of the cluster, if there is one.
///
/// # Errors
///
/// As [`Embedded::start`].
pub fn existing(options: &Options) -> Result<Option<PathBuf>, EmbeddedError> {
    let directory = DataDirectory::choose(&options.data_dir, Path::new(SYSTEM_DATA_DIR), account::for_root()?)?;
    Ok(directory.has_cluster().then_some(directory.home))
}

/// The user's data directory for this program, from the values of `XDG_DATA_HOME` and `HOME`.
///
/// None if neither is an absolute path: the caller must then require `DATA_DIR`, because the data could not be found again in a
/// guessed location.
pub fn default_data_dir(xdg_data_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    data_dir_of(rustix::process::geteuid().is_root(), xdg_data_home, home)
}

fn data_dir_of(root: bool, xdg: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from(SYSTEM_DATA_DIR));
    }
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(xdg).or_else(|| Some(absolute(home)?.join(".local/share")))?;
    Some(base.join("pycrudapi"))
}
