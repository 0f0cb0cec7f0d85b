//! PostgreSQL's client programs, for backups and cluster upgrades: `pg_basebackup`, `pg_receivewal`, `pg_dumpall`.
//!
//! Invariant: their major version is that of the server they connect to, and no program outlives this process.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::binaries::{self, Binaries};
use super::error::EmbeddedError;
use super::{Options, spawn};

/// Programs of one release.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Finds the programs of a major version.
    ///
    /// # Errors
    /// If they are not installed.
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

    /// The programs of a release that was found.
    pub(super) fn of(found: &Binaries) -> Self {
        Self { dir: found.dir.clone() }
    }

    /// A command that runs a program in a directory with a clean environment; the program is killed when the thread that starts
    /// it ends.
    ///
    /// # Errors
    /// If this program is missing.
    pub fn command(&self, name: &'static str, dir: &Path) -> Result<Command, EmbeddedError> {
        let program = self.dir.join(name);
        if !program.is_file() {
            return Err(EmbeddedError::NoProgram { dir: self.dir.clone(), name });
        }
        Ok(spawn::command(&program, dir, None, Signal::KILL))
    }
}
