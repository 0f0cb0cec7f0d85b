//! Ensures that each cluster has only one server.
//!
//! Uses a kernel lock (`flock`) on a file: it is released when its holder exits for any reason, so there are no stale locks.
//! Only the holder removes the file, and only if there is no cluster. Acquiring the lock never waits. Invariant: the holder may
//! end any other process of the cluster.

use std::fs::{self, File, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::data_directory::DataDirectory;
use super::error::{self, EmbeddedError};
use super::files;

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Acquires the lock and writes this process's pid to the file, for the error message of the next process.
    pub fn take(directory: &DataDirectory) -> Result<Self, EmbeddedError> {
        let path = directory.home.join("lock");
        let file = loop {
            let file = files::open_to_write(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(directory, &path)),
                Err(TryLockError::Error(source)) => return Err(error::file("lock", &path)(source)),
            }
            // A previous holder may have removed the file after it was opened here.
            let ours = file.metadata().map_err(error::file("read", &path))?;
            if path.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                break file;
            }
        };
        let lock = Self { file, path: path.clone() };
        lock.write_pid().map_err(error::file("write", &path))?;
        Ok(lock)
    }

    fn write_pid(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Removes the file but keeps the lock: for a directory in which nothing must remain.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path); // a remaining file is harmless
    }

    /// Releases the lock. Closing the file would not be enough: a process that another thread is forking at this moment has a
    /// copy of it, and thus the lock, until its exec.
    pub fn release(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot unlock the directory of the embedded postgresql");
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
