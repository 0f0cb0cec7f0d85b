//! Directories in `TMPDIR`: those that are gone when their work is done, and those that the next run finds again.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::disk::unwritable;

/// A new directory; dropping it removes it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one, with a name that nobody guesses.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn within(parent: &Path, mode: u32) -> anyhow::Result<Self> {
        let path = parent.join(format!("pycrudapi-{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(mode).create(&path).map_err(|error| unwritable(&path, error))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // the system's own cleaning takes what cannot be removed now
    }
}

/// A directory of ours in `TMPDIR` that is the same for every run, so that one that was killed loses nothing.
///
/// # Errors
/// When it cannot be made, or somebody else has made it.
pub fn private(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::temp_dir().join(name);
    DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| unwritable(&path, error))?;
    let found = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        bail!("{} is not a private directory of this user; remove it, or set TMPDIR", path.display());
    }
    Ok(path)
}
