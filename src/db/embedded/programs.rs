//! PostgreSQL's programs for whoever makes and reads backups, and upgrades a cluster: `pg_basebackup`, `pg_receivewal`, `pg_dumpall`.
//!
//! Invariant: they are of the major version of the server that they speak to, and no program outlives us.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::binaries::{self, Binaries};
use super::error::EmbeddedError;
use super::{Options, spawn};

/// Programs of one version.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Those of a major version.
    ///
    /// # Errors
    /// When they are not on this machine.
    pub fn find(options: &Options, major: u32) -> Result<Self, EmbeddedError> {
        let sources = binaries::Sources {
            pg_bin: options.pg_bin.as_deref(),
            search_path: options.search_path.as_deref(),
            account: None,
        };
        match binaries::newest_of(&sources, Some(major)) {
            Some(found) => Ok(Self { dir: found.dir }),
            None => Err(EmbeddedError::NoPrograms { major, install: binaries::install_command(Some(major)) }),
        }
    }

    /// Those of a release that was found.
    pub(super) fn of(found: &Binaries) -> Self {
        Self { dir: found.dir.clone() }
    }

    /// A program, to be run in a directory with nothing of our environment; it is killed when the thread that starts it
    /// ends.
    ///
    /// # Errors
    /// When this one of the programs is not there.
    pub fn command(&self, name: &'static str, dir: &Path) -> Result<Command, EmbeddedError> {
        let program = self.dir.join(name);
        if !program.is_file() {
            return Err(EmbeddedError::NoProgram { dir: self.dir.clone(), name });
        }
        Ok(spawn::command(&program, dir, None, Signal::KILL))
    }
}
