//! Every error that can prevent the embedded PostgreSQL from starting, with its remedy.
//!
//! The text does not repeat the operating system's error: that is `source()`, printed with the chain of causes. Invariant: the
//! text alone is sufficient to fix the problem.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::shell::quoted;

/// The oldest release maintained when this was written; older ones are not used.
pub(super) const OLDEST_MAJOR: u32 = 13;

/// Why the embedded PostgreSQL did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant is its documentation")]
pub enum EmbeddedError {
    #[error(
        "no postgresql server ({OLDEST_MAJOR} or newer) on this machine: install it with \
         `{install}`, set PG_BIN to its directory, or use another database with DATABASE_URL"
    )]
    NoBinaries { install: String },

    #[error(
        "PG_BIN={} does not contain postgres and initdb of postgresql {OLDEST_MAJOR} or newer: \
         set it to the directory that does, such as /usr/lib/postgresql/17/bin, or unset it", .dir.display()
    )]
    WrongPgBin { dir: PathBuf },

    #[error(
        "the cluster in {} was created by postgresql {major}, which is not installed: install it with \
         `{install}`, or start an empty cluster in another DATA_DIR", .data.display()
    )]
    NoBinariesFor { data: PathBuf, major: u32, install: String },

    #[error(
        "the cluster in {} was created by postgresql {major}, but the newest release found is {newest}: install {major} \
         with `{install}` and start again, or, with both installed, upgrade the cluster to {newest} with `pycrudapi \
         upgrade-cluster`; PG_BIN specifies only one release", .data.display()
    )]
    OldCluster { data: PathBuf, major: u32, newest: u32, install: String },

    #[error(
        "the programs of postgresql {major}, which created {}, are not on this machine, and no other release can read \
         it: install them with `{install}`, or set --old-bin to their directory", .data.display()
    )]
    NoOldBinaries { data: PathBuf, major: u32, install: String },

    #[error(
        "neither {new} nor {old} nor any release between them has pg_dumpall, pg_dump and psql: install the complete \
         postgresql {major} with `{install}`", old = .old.display(), new = .new.display()
    )]
    NoDump { old: PathBuf, new: PathBuf, major: u32, install: String },

    #[error(
        "PG_BIN has postgresql {found}, but the cluster in {} was created by {major}: specify a newer one, or unset it",
        .data.display()
    )]
    Older { data: PathBuf, major: u32, found: u32 },

    #[error("{} is the cluster that an earlier upgrade has kept: move it away, or remove it", .path.display())]
    Kept { path: PathBuf },

    #[error(
        "the disk of {} has {} MiB free, but the new cluster requires up to {} MiB in addition to the old one: free disk space",
        .path.display(), .free_bytes >> 20, (.needed_bytes >> 20) + 1
    )]
    NoRoom { path: PathBuf, needed_bytes: u64, free_bytes: u64 },

    #[error(
        "the programs of postgresql {major} are not on this machine, and no other release works with a server of that version: \
         install them with `{install}`, or set PG_BIN to their directory"
    )]
    NoPrograms { major: u32, install: String },

    #[error("{} has no {name}: install the complete postgresql, or set PG_BIN to another directory", .dir.display())]
    NoProgram { dir: PathBuf, name: &'static str },

    #[error("{} is not empty: specify a new directory, or empty this one", .path.display())]
    NotEmpty { path: PathBuf },

    #[error("{} is in use by another server{}: stop it, or choose another DATA_DIR",
        .home.display(), .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { home: PathBuf, holder: Option<u32> },

    #[error(
        "the cluster in {} is inaccessible to uid {uid}, which postgresql runs as: `chmod o+x {}`, or move the directory \
         and set DATA_DIR to its new parent",
        .home.display(), quoted(&.closed.to_string_lossy())
    )]
    Closed { home: PathBuf, closed: PathBuf, uid: u32 },

    #[error("{} is not a postgresql cluster: move it away, or choose another DATA_DIR", .data.display())]
    NotACluster { data: PathBuf },

    #[error(
        "{} is a symbolic link or belongs to uid {uid}: remove it, start as that user, or choose another DATA_DIR",
        .path.display()
    )]
    NotOurs { path: PathBuf, uid: u32 },

    #[error(
        "postgresql refuses to run as root, and there is no account postgres or nobody to run it \
         as: add one with `useradd --system postgres`, or start the server as another user"
    )]
    NoAccount,

    #[error("DATA_DIR must be a directory, and {} is a file: move it away, or choose another DATA_DIR", .path.display())]
    NoDirectory { path: PathBuf },

    #[error(
        "cannot {action} {}: check this user's permissions and the free disk space, or choose another DATA_DIR",
        .path.display()
    )]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("cannot run {} as uid {uid}: check its permissions, or set PG_BIN to another directory", .program.display())]
    Spawn { program: PathBuf, uid: u32, source: io::Error },

    #[error(
        "initdb could not create a cluster in {} ({status}): fix what it reports and start again\n{output}",
        .path.display()
    )]
    Initdb { path: PathBuf, status: ExitStatus, output: String },

    #[error("postgresql ended before it was ready ({status}): fix what {} reports and start again\n{tail}", .log.display())]
    Ended { status: ExitStatus, log: PathBuf, tail: String },

    #[error("postgresql was not ready after {seconds} s: see {} and start again\n{tail}", .log.display())]
    NotReady { seconds: u64, log: PathBuf, tail: String },

    #[error(
        "processes {pids:?} of an earlier server still use {} and could not be ended: end them, then start again",
        .data.display()
    )]
    Orphans { data: PathBuf, pids: Vec<i32> },

    #[error("postgresql was stopped while it was starting: start it again")]
    Stopped,
}

/// Adds the operation and the path to the error of a file operation.
pub(super) fn file<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EmbeddedError + 'a {
    move |source| EmbeddedError::File { action, path: path.to_path_buf(), source }
}
