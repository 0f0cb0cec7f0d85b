//! Directories and files that root creates where another account can write, or other users can read.
//!
//! A link is never followed at the last component, files of other users are never taken over, and the mode of an existing
//! directory is changed only if it is a private one. Invariant: a private directory belongs to the current user or the account
//! and has mode 0700.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::account::Account;
use super::error::{self, EmbeddedError};

/// Mode of the directories that root creates above a cluster: they must be accessible to its account.
const OPEN: u32 = 0o755;

/// Creates `path` and its missing parents. As root their mode is set regardless of the umask, which would otherwise make the
/// cluster inaccessible to the account that runs it.
pub(super) fn create_dirs(path: &Path) -> Result<(), EmbeddedError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) if rustix::process::geteuid().is_root() => {
            fs::set_permissions(path, fs::Permissions::from_mode(OPEN)).map_err(error::file("open to others", path))
        }
        Err(failure) if failure.kind() != ErrorKind::AlreadyExists => Err(error::file("create", path)(failure)),
        _ => Ok(()),
    }
}

/// Creates the directory, or takes an existing one, for `account` (or the current user) only.
pub(super) fn private_dir(path: &Path, account: Option<Account>) -> Result<(), EmbeddedError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(failure) if failure.kind() != ErrorKind::AlreadyExists => {
            return Err(error::file("create", path)(failure));
        }
        _ => {}
    }
    // From here on the open directory is used, so that the path cannot be replaced meanwhile.
    let dir = open_dir(path)?;
    let us = rustix::process::geteuid().as_raw();
    let owner = dir.metadata().map_err(error::file("read", path))?.uid();
    if owner != us && account.is_none_or(|account| owner != account.uid) {
        return Err(EmbeddedError::NotOurs { path: path.to_path_buf(), uid: owner });
    }
    let shut = || -> io::Result<()> {
        if let Some(account) = account {
            fchown(&dir, Some(account.uid), Some(account.gid))?;
        }
        dir.set_permissions(fs::Permissions::from_mode(0o700))
    };
    shut().map_err(error::file("give an owner to", path))
}

fn open_dir(path: &Path) -> Result<File, EmbeddedError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => Ok(File::from(dir)),
        Err(failure) => {
            let found = fs::symlink_metadata(path).ok().filter(|found| !found.is_dir());
            Err(match found {
                Some(found) => EmbeddedError::NotOurs { path: path.to_path_buf(), uid: found.uid() },
                None => error::file("open", path)(failure.into()),
            })
        }
    }
}

/// Opens a file for reading and appending, creating it if missing, accessible only to the current user.
pub(super) fn open_to_write(path: &Path) -> Result<File, EmbeddedError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(|failure| error::file("write", path)(failure.into()))
}

/// Makes changes of the directory's entries, such as a preceding rename, durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), EmbeddedError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(error::file("write", path))
}
