//! A cluster that is restored from a backup: it is created in a temporary directory, recovered there, and renamed when it is
//! complete.
//!
//! A directory that contains anything but the remains of an interrupted restore is refused. Invariants: `embedded/data` is
//! absent or a complete cluster, even after a power failure; an incomplete one is in `embedded/restoring`. A failed restore
//! leaves the directory as it was: absent, or empty.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::Account;
use super::binaries::{self, Binaries};
use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::lock::Lock;
use super::server::Server;
use super::{Options, account, cluster, files, orphans};

/// Where the files are until the cluster is complete.
const ASIDE: &str = "restoring";
/// The modes of the directories around the cluster, which itself is private: other users cannot list them, but PostgreSQL's
/// account must be able to enter those of root.
const CLOSED: u32 = 0o700;
const PASSABLE: u32 = 0o711;
/// What an interrupted restore may have left.
const REMAINS: [&str; 2] = ["lock", ASIDE];
/// Time limit of recovery, which depends on the amount of WAL: one that takes more than a week has failed.
const READY_WITHIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Access control: every user who can open the socket.
const PG_HBA: &str = "local all all trust\nlocal replication all trust\n";

/// The location of a restored cluster; dropping it removes an incomplete one.
#[derive(Debug)]
pub struct Target {
    /// The final location.
    directory: DataDirectory,
    /// The temporary location.
    aside: DataDirectory,
    binaries: Binaries,
    lock: Lock,
    is_kept: bool,
    made: Made,
}

/// Directories created for a cluster, innermost first; dropping this removes the empty ones.
#[derive(Debug)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir(path); // one that is not empty is in use
        }
    }
}

impl Target {
    /// Prepares an empty location for a cluster of a major version, or of the newest one.
    ///
    /// # Errors
    /// If it is not empty, or there are no binaries of that version.
    pub fn prepare(options: &Options, major: Option<u32>) -> Result<Self, EmbeddedError> {
        let requested = &options.data_dir;
        let account = account::for_root()?;
        // The fallback would put the cluster in an unexpected place.
        let directory = DataDirectory::choose(requested, requested, account)?;
        let home = &directory.home;
        let stranger = |path: &Path, known: &[&str]| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name()).find(|name| !known.iter().any(|known| name == known))
        };
        let parent = home.parent().unwrap_or(home);
        if stranger(parent, &["embedded"]).is_some() || stranger(home, &REMAINS).is_some() {
            return Err(EmbeddedError::NotEmpty { path: parent.to_path_buf() });
        }
        let sources = binaries::Sources {
            pg_bin: options.pg_bin.as_deref(),
            search_path: options.search_path.as_deref(),
            account,
        };
        let install = || binaries::install_command(major);
        let binaries = binaries::newest_of(&sources, major).ok_or_else(|| match major {
            Some(major) => EmbeddedError::NoPrograms { major, install: install() },
            None => EmbeddedError::NoBinaries { install: install() },
        })?;
        if let Some(account) = account
            && let Some(closed) = account.first_closed(home)
        {
            return Err(EmbeddedError::Closed { home: home.clone(), closed, uid: account.uid });
        }
        let made = Made(home.ancestors().take_while(|path| !path.exists()).map(Path::to_path_buf).collect());
        directory.create()?;
        let mode = Permissions::from_mode(if account.is_some() { PASSABLE } else { CLOSED });
        for path in made.0.iter().take(2) {
            fs::set_permissions(path, mode.clone()).map_err(error::file("close", path))?;
        }
        let lock = Lock::take(&directory)?;
        let aside = DataDirectory { home: home.join(ASIDE), account };
        let target = Self { directory, aside, binaries, lock, is_kept: false, made };
        target.clear()?;
        files::create_dirs(&target.aside.home)?;
        files::private_dir(&target.aside.data(), None)?;
        files::private_dir(&target.wal(), None)?;
        Ok(target)
    }

    /// The directory for the cluster's files.
    pub fn data(&self) -> PathBuf {
        self.aside.data()
    }

    /// The directory for the WAL to replay.
    pub fn wal(&self) -> PathBuf {
        self.aside.home.join("wal")
    }

    /// Creates a new, empty cluster.
    ///
    /// # Errors
    /// If it cannot be created, or does not start.
    pub fn make(&self) -> Result<Server, EmbeddedError> {
        cluster::create(&self.aside, &self.binaries)?;
        Server::start(&self.aside, &self.binaries, Vec::new(), READY_WITHIN)
    }

    /// Replays WAL up to the target in the settings, and promotes the server.
    ///
    /// # Errors
    /// If it cannot be recovered that far; the call can be repeated with other settings.
    pub fn recover(&self, settings: &[(&str, String)]) -> Result<Server, EmbeddedError> {
        let data = self.data();
        let put =
            |name: &str, text: &str| fs::write(data.join(name), text).map_err(error::file("write", &data.join(name)));
        put("recovery.signal", "")?;
        put("pg_hba.conf", PG_HBA)?;
        for name in ["postgresql.conf", "pg_ident.conf"] {
            // Packages keep these files elsewhere; the settings are passed on the command line.
            if !data.join(name).exists() {
                put(name, "")?;
            }
        }
        if let Some(account) = self.aside.account {
            give(&data, account)?;
            give(&self.wal(), account)?;
        }
        let mut all = vec![
            // The working directory is the cluster's.
            ("restore_command".to_owned(), "cp ../wal/%f %p".to_owned()),
            ("recovery_target_action".to_owned(), "promote".to_owned()),
            ("hot_standby".to_owned(), "off".to_owned()),
            ("archive_mode".to_owned(), "off".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Server::start(&self.aside, &self.binaries, all, READY_WITHIN)
    }

    /// Stops the server and moves the cluster to its final location; returns `DATA_DIR`.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn keep(mut self, recovered: Server) -> Result<PathBuf, EmbeddedError> {
        drop(recovered);
        let data = self.directory.data();
        fs::rename(self.data(), &data).map_err(error::file("rename", &self.data()))?;
        self.is_kept = true;
        self.made.0.clear();
        files::sync_dir(&self.directory.home)?;
        Ok(self.directory.home.parent().unwrap_or(&self.directory.home).to_path_buf())
    }

    fn clear(&self) -> Result<(), EmbeddedError> {
        let aside = &self.aside.home;
        if aside.symlink_metadata().is_err() {
            return Ok(());
        }
        orphans::end(&self.aside.data(), self.aside.account)?;
        fs::remove_dir_all(aside).map_err(error::file("remove", aside))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Err(failure) = self.clear() {
            let failure: &dyn std::error::Error = &failure;
            tracing::warn!(error = failure, "cannot remove an incomplete restore");
        }
        if !self.is_kept {
            self.lock.remove();
            let _ = fs::remove_dir(&self.directory.home); // it is not empty if `clear` failed, which is logged
        }
    }
}

/// Transfers a directory and everything in it to an account, and makes it private.
fn give(path: &Path, account: Account) -> Result<(), EmbeddedError> {
    lchown(path, Some(account.uid), Some(account.gid)).map_err(error::file("give an owner to", path))?;
    let found = path.symlink_metadata().map_err(error::file("read", path))?;
    if found.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(error::file("close", path))?;
        for entry in fs::read_dir(path).map_err(error::file("read", path))? {
            give(&entry.map_err(error::file("read", path))?.path(), account)?;
        }
    }
    Ok(())
}
