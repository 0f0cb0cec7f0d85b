//! Directories in `TMPDIR`: temporary ones, and private ones that the next run finds again.
//!
//! Never removes a directory that another process uses: it holds a lock of the kernel on it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::disk::{name_of, unwritable};

/// The prefix of their names, and the number of hexadecimal digits after it.
const NAME: &str = "pycrudapi-";
const DIGITS: usize = 32;

/// A new directory; dropping it removes it. The next process that creates one there removes those of killed processes.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// The kernel's lock on it, which is released however this process ends.
    _lock: File,
}

impl Scratch {
    /// Creates one with a random name.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn within(parent: &Path, mode: u32) -> anyhow::Result<Self> {
        sweep(parent);
        let digits = Uuid::new_v4().simple();
        // It is locked before it has a name that `sweep` considers.
        let (new, path) = (parent.join(format!("{NAME}new-{digits}")), parent.join(format!("{NAME}{digits}")));
        let make = || {
            DirBuilder::new().mode(mode).create(&new)?;
            let lock = File::open(&new)?;
            lock.try_lock()?;
            fs::rename(&new, &path)?;
            Ok(lock)
        };
        let lock = make().map_err(|error| {
            let _ = fs::remove_dir(&new); // it may not be there
            unwritable(&path, error)
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // the next run removes what cannot be removed now
    }
}

/// Removes the directories of killed processes of this user, which may contain unencrypted rows or a whole cluster.
fn sweep(parent: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    for path in fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = name_of(&path);
        let is_one = name
            .strip_prefix(NAME)
            .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let is_ours = || path.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == ours);
        if is_one && is_ours() && File::open(&path).is_ok_and(|held| held.try_lock().is_ok()) {
            tracing::warn!(directory = %path.display(), "removing the remains of a killed run");
            let _ = fs::remove_dir_all(&path); // the next run tries again
        }
    }
}

/// A private directory in `TMPDIR` that is the same for every run, so that a killed run loses nothing.
///
/// # Errors
/// When it cannot be created, or belongs to another user.
pub fn private(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(name);
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| unwritable(&path, error))?;
    let found = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        bail!("{} is not a private directory of this user; remove it, or set TMPDIR", path.display());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_has_left_is_removed_by_the_next_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let held = Scratch::within(parent.path(), 0o700).expect("made");
        let left = parent.path().join(format!("{NAME}{}", "0".repeat(DIGITS)));
        let others = [parent.path().join("pycrudapi-stage-0"), parent.path().join("0".repeat(DIGITS))];
        for path in others.iter().chain([&left]) {
            fs::create_dir(path).expect("made");
            fs::write(path.join("rows"), "rows").expect("written");
        }
        drop(Scratch::within(parent.path(), 0o700).expect("made"));
        assert!(!left.exists() && held.path().is_dir() && others.iter().all(|path| path.is_dir()));
        drop(held);
        assert_eq!(fs::read_dir(parent.path()).expect("listed").count(), others.len());
    }
}
