//! Upgrade to a newer major release: a new cluster is created beside the existing one, and then replaces it.
//!
//! The two directories are exchanged atomically. The old cluster is never removed. Invariant: `embedded/data` is a complete
//! cluster, the old one or the new one, even after a power failure; an incomplete one is in `embedded/upgrading`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};

use super::binaries::{self, Binaries, Sources};
use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::lock::Lock;
use super::postmaster::READY_WITHIN;
use super::programs::Programs;
use super::server::Server;
use super::{Options, SYSTEM_DATA_DIR, account, cluster, files, orphans};

/// Where the new cluster is until it is complete.
const ASIDE: &str = "upgrading";
/// Limit of the WAL while rows are loaded: PostgreSQL keeps it below twice this.
const WAL_BYTES: u64 = 256 << 20;
/// The programs that make the copy.
const DUMP: [&str; 3] = ["pg_dumpall", "pg_dump", "psql"];

/// Two releases and the locations of their clusters; dropping it removes an incomplete one.
#[derive(Debug)]
pub struct Upgrade {
    directory: DataDirectory,
    aside: DataDirectory,
    old: Binaries,
    new: Binaries,
    programs: Programs,
    _lock: Lock,
}

impl Upgrade {
    /// Checks everything that an upgrade requires, and acquires the cluster's lock; none if there is no newer release on this
    /// machine.
    ///
    /// # Errors
    /// If the cluster's server is running, programs or disk space are missing, or the cluster of an earlier upgrade is still
    /// kept.
    pub fn prepare(options: &Options, old_bin: Option<&Path>) -> Result<Option<Self>, EmbeddedError> {
        let directory = DataDirectory::choose(&options.data_dir, Path::new(SYSTEM_DATA_DIR), account::for_root()?)?;
        let data = directory.data();
        let major = cluster::version(&data)?.ok_or_else(|| EmbeddedError::NotACluster { data: data.clone() })?;
        let lock = Lock::take(&directory)?;
        finish(&directory)?;
        let sources =
            |pg_bin| Sources { pg_bin, search_path: options.search_path.as_deref(), account: directory.account };
        let named = options.pg_bin.as_deref();
        let new = binaries::find(&sources(named), &data, None)?;
        if new.version.major <= major {
            return match named {
                Some(_) => Err(EmbeddedError::Older { data, major, found: new.version.major }),
                None => Ok(None),
            };
        }
        let install = || binaries::install_command(Some(major));
        let old = binaries::newest_of(&sources(old_bin), Some(major)).ok_or_else(|| {
            let (data, install) = (data.clone(), install());
            EmbeddedError::NoOldBinaries { data, major, install }
        })?;
        let programs = dump_programs(&[new.clone(), old.clone()], &binaries::all(&sources(None))).ok_or_else(|| {
            EmbeddedError::NoDump { old: old.dir.clone(), new: new.dir.clone(), major, install: install() }
        })?;
        let kept = kept(&directory, major);
        if kept.symlink_metadata().is_ok() {
            return Err(EmbeddedError::Kept { path: kept });
        }
        expect_room(&directory)?;
        let aside = DataDirectory { home: directory.home.join(ASIDE), account: directory.account };
        let upgrade = Self { directory, aside, old, new, programs, _lock: lock };
        upgrade.clear()?;
        upgrade.expect_exchange()?;
        Ok(Some(upgrade))
    }

    /// The old and the new release.
    pub fn releases(&self) -> (String, String) {
        (self.old.version.to_string(), self.new.version.to_string())
    }

    /// The programs that read the old cluster and fill the new one.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The directory of the cluster.
    pub fn data(&self) -> PathBuf {
        self.directory.data()
    }

    /// Starts the old cluster in its place, read-only: writes after the copy would be lost.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_old(&self) -> Result<Server, EmbeddedError> {
        let settings = vec![("default_transaction_read_only".to_owned(), "on".to_owned())];
        Server::start(&self.directory, &self.old, settings, READY_WITHIN)
    }

    /// Creates the new cluster and starts it.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn start_new(&self) -> Result<Server, EmbeddedError> {
        files::create_dirs(&self.aside.home)?;
        cluster::create(&self.aside, &self.new)?;
        let settings = vec![("max_wal_size".to_owned(), format!("{}MB", WAL_BYTES >> 20))];
        Server::start(&self.aside, &self.new, settings, READY_WITHIN)
    }

    /// Replaces the old cluster with the new one; both must have been stopped. Returns where the old one is kept.
    ///
    /// # Errors
    /// If they cannot be moved.
    pub fn keep(self) -> Result<PathBuf, EmbeddedError> {
        let (data, new) = (self.directory.data(), self.aside.data());
        exchange(&new, &data).map_err(error::file("exchange", &data))?;
        let kept = finish(&self.directory)?.unwrap_or(new);
        Ok(kept)
    }

    /// Tests an exchange now rather than after everything has been copied.
    fn expect_exchange(&self) -> Result<(), EmbeddedError> {
        let [one, other] = ["one", "other"].map(|name| self.aside.home.join(name));
        files::create_dirs(&one)?;
        files::create_dirs(&other)?;
        exchange(&one, &other).map_err(|source| EmbeddedError::File {
            action: "exchange two directories in one step in",
            path: self.aside.home.clone(),
            source,
        })
    }

    fn clear(&self) -> Result<(), EmbeddedError> {
        let aside = &self.aside.home;
        // The old cluster is never removed, even if it could not be renamed.
        if aside.symlink_metadata().is_err() || exchanged(&self.directory)?.is_some() {
            return Ok(());
        }
        orphans::end(&self.aside.data(), self.aside.account)?;
        fs::remove_dir_all(aside).map_err(error::file("remove", aside))
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        if let Err(failure) = self.clear() {
            let failure: &dyn std::error::Error = &failure;
            tracing::warn!(error = failure, "cannot remove an incomplete upgrade");
        }
    }
}

/// Where the cluster of a major release is kept after an upgrade.
fn kept(directory: &DataDirectory, major: u32) -> PathBuf {
    directory.home.join(format!("data-{major}"))
}

/// The release of the old cluster, if it has been exchanged with the new one but not renamed yet.
fn exchanged(directory: &DataDirectory) -> Result<Option<u32>, EmbeddedError> {
    // An incomplete cluster has no such file, or that of the newer release.
    let aside = cluster::version(&directory.home.join(ASIDE).join("data")).unwrap_or_default();
    let now = cluster::version(&directory.data())?;
    Ok(aside.filter(|before| now.is_some_and(|now| *before < now)))
}

/// Renames the old cluster to the name under which it is kept; also after a run that was interrupted before this.
fn finish(directory: &DataDirectory) -> Result<Option<PathBuf>, EmbeddedError> {
    let Some(before) = exchanged(directory)? else { return Ok(None) };
    let (aside, kept) = (directory.home.join(ASIDE).join("data"), kept(directory, before));
    fs::rename(&aside, &kept).map_err(error::file("rename", &aside))?;
    files::sync_dir(&directory.home)?;
    Ok(Some(kept))
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(Into::into)
}

/// The newest programs that can read the old release and whose output the new one can read.
fn dump_programs(ends: &[Binaries; 2], all: &[Binaries]) -> Option<Programs> {
    let [new, old] = ends.each_ref().map(|end| end.version.major);
    let between = all.iter().filter(|found| (old..=new).contains(&found.version.major));
    let mut candidates: Vec<&Binaries> = ends.iter().chain(between).collect();
    candidates.sort_by_key(|found| std::cmp::Reverse(found.version));
    let whole = |found: &&&Binaries| DUMP.iter().all(|name| found.dir.join(name).is_file());
    candidates.iter().find(whole).map(|found| Programs::of(found))
}

fn expect_room(directory: &DataDirectory) -> Result<(), EmbeddedError> {
    let (home, data) = (&directory.home, directory.data());
    let needed_bytes = bytes_below(&data).map_err(error::file("read", &data))? + 2 * WAL_BYTES;
    let disk = statvfs(home).map_err(|failure| error::file("read", home)(failure.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < needed_bytes {
        return Err(EmbeddedError::NoRoom { path: home.clone(), needed_bytes, free_bytes });
    }
    Ok(())
}

/// Size of a copy: everything but WAL.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if !found.is_dir() {
            bytes += found.len();
        } else if entry.file_name() != "pg_wal" {
            bytes += bytes_below(&entry.path())?;
        }
    }
    Ok(bytes)
}
