//! Directories that are gone when their work is done.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::folder::unwritable;

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
