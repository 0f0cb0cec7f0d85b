//! One server per cluster.
//!
//! A lock of the kernel (`flock`) on a file: it goes with its holder, however that dies, so a
//! stale lock does not exist. Only its holder removes the file, where there is no cluster. Refuses
//! to wait. Invariant: whoever holds it may end any other process of the cluster.

use std::fs::{self, File, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::files;

/// The held lock.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock and leaves our pid in the file for the error text of the next.
    pub fn take(directory: &DataDirectory) -> Result<Self, EmbeddedError> {
        let path = directory.home.join("lock");
        let file = loop {
            let file = files::open_to_write(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(directory, &path)),
                Err(TryLockError::Error(source)) => return Err(error::file("lock", &path)(source)),
            }
            // Whoever held it before may have removed the file since it was opened here.
            let ours = file.metadata().map_err(error::file("read", &path))?;
            if path.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                break file;
            }
        };
        let lock = Self { file, path: path.clone() };
        lock.name_holder().map_err(error::file("write", &path))?;
        Ok(lock)
    }

    fn name_holder(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Removes the file, and keeps the lock: for a directory in which nothing is to stay.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path); // one that stays says nothing
    }

    /// Gives the lock up. Closing the file would not do: a process being forked by another
    /// thread at this moment keeps a copy of it, and with it the lock, until its exec.
    pub fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot unlock the embedded postgresql's directory");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}

fn in_use(directory: &DataDirectory, path: &PathBuf) -> EmbeddedError {
    let holder = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    EmbeddedError::InUse { home: directory.home.clone(), holder }
}
