//! A private PostgreSQL for people and tests that have not set one up.
//!
//! Starts the server binaries already on the machine on a cluster of our own, keeps them
//! running, and takes them down with us. Refuses to download anything, to listen on TCP, to
//! switch fsync off, to share a cluster between two servers, and to touch a cluster that is not
//! ours. Invariant: while an [`Embedded`] lives it alone holds the cluster's lock, and when
//! [`Embedded::stop`] returns no process of the cluster is left.
//!
//! Below `DATA_DIR` (or what takes its place, see `data_directory.rs`):
//!
//! ```text
//! embedded/lock             held by the running server, names its pid
//! embedded/data/            the cluster
//! embedded/data.new/        a cluster in the making, worthless if found at start
//! embedded/restoring/       one that is made out of a backup, worthless unless somebody is at it
//! embedded/upgrading/       the cluster of a newer release, worthless unless somebody is at it
//! embedded/data-15/         the cluster of before an upgrade, as it was
//! embedded/run/             the socket, unless its path would be too long
//! embedded/postgres.log(.1) what PostgreSQL said in this run and in the one before
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

/// Where root keeps clusters: ours by default, and those whose own directory is closed to the
/// account PostgreSQL runs under.
const SYSTEM_DATA_DIR: &str = "/var/lib/pycrudapi";

/// What to start and where; read from the environment by the caller, never here.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `DATA_DIR`; created if missing. Everything goes into its folder `embedded`.
    pub data_dir: PathBuf,
    /// `PG_BIN`: the directory of the PostgreSQL server binaries. No other is tried.
    pub pg_bin: Option<PathBuf>,
    /// `PATH`, searched for server binaries and `pg_config`.
    pub search_path: Option<OsString>,
    /// PostgreSQL settings, stronger than our defaults, weaker than what keeps the cluster
    /// private and durable.
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
    /// Starts PostgreSQL, making the cluster first if there is none, and returns when it
    /// answers. Blocks: about a second for a new cluster, a tenth of one otherwise.
    ///
    /// # Errors
    ///
    /// When there are no binaries, the directory is in use or not ours, or PostgreSQL does not
    /// start; the text says what to do about it, `source()` holds the system's reason.
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

    /// How to connect: over the socket, as the superuser, to the database `postgres`.
    pub fn config(&self) -> tokio_postgres::Config {
        config_at(&self.socket_dir)
    }

    /// The folder everything is in, after any fall-back: `DATA_DIR/embedded`, canonical.
    pub fn data_dir(&self) -> &Path {
        &self.directory.home
    }

    /// The postmaster that serves now; none while it is being replaced, and after `stop`.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// Stops PostgreSQL and gives the directory free. Blocks until its processes are gone, a
    /// fraction of a second unless it hangs, 20 s at worst. Again is harmless.
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

/// How to connect to the one that another process has started on the same directory and keeps running; none when nobody
/// does, or when it does not accept connections now.
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
/// None when neither is an absolute path: the caller must then ask for `DATA_DIR`, since a
/// guess would be a place where nobody finds the data again.
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
