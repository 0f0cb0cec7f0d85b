//! Everything that can keep the embedded PostgreSQL from starting, each with its remedy.
//!
//! Refuses to repeat the operating system's reason in the text: that is `source()`, printed by
//! whoever prints the chain. Invariant: whoever reads only this text knows what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// The oldest release still maintained when this was written; older ones are not tried.
pub(super) const OLDEST_MAJOR: u32 = 13;

/// Why the embedded PostgreSQL did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant is its documentation")]
pub enum EmbeddedError {
    #[error(
        "no postgresql server ({OLDEST_MAJOR} or newer) on this machine: install it with \
         `{install}`, name its directory in PG_BIN, or use another database with DATABASE_URL"
    )]
    NoBinaries { install: String },

    #[error(
        "PG_BIN={} does not hold postgres and initdb of postgresql {OLDEST_MAJOR} or newer: \
         name the directory that does, such as /usr/lib/postgresql/17/bin, or unset it", .dir.display()
    )]
    WrongPgBin { dir: PathBuf },

    #[error(
        "the cluster in {} was made by postgresql {major}, which is not here: install it with \
         `{install}`, or start an empty cluster in another DATA_DIR", .data.display()
    )]
    NoBinariesFor { data: PathBuf, major: u32, install: String },

    #[error(
        "the cluster in {} was made by postgresql {major}, and the newest release that was found is {newest}: install {major} with \
         `{install}` and start again, or, with both of them there, move the cluster to {newest} with `pycrudapi upgrade-cluster`; \
         PG_BIN names one release alone", .data.display()
    )]
    OldCluster { data: PathBuf, major: u32, newest: u32, install: String },

    #[error(
        "the programs of postgresql {major}, which made {}, are not on this machine, and only they read it: install them with \
         `{install}`, or name their directory with --old-bin", .data.display()
    )]
    NoOldBinaries { data: PathBuf, major: u32, install: String },

    #[error(
        "neither {new} nor {old} has pg_dumpall, pg_dump and psql, nor has any release between: install the whole of postgresql {major} with \
         `{install}`", old = .old.display(), new = .new.display()
    )]
    NoDump { old: PathBuf, new: PathBuf, major: u32, install: String },

    #[error("PG_BIN names postgresql {found}, and the cluster in {} was made by {major}: name a newer one, or unset it", .data.display())]
    Older { data: PathBuf, major: u32, found: u32 },

    #[error("{} is the cluster that an earlier upgrade has kept: move it away, or remove it", .path.display())]
    Kept { path: PathBuf },

    #[error(
        "the disk of {} has {} MiB, and the cluster beside the old one takes up to {} MiB: make room", .path.display(),
        .free_bytes >> 20, (.needed_bytes >> 20) + 1
    )]
    NoRoom { path: PathBuf, needed_bytes: u64, free_bytes: u64 },

    #[error(
        "the programs of postgresql {major} are not on this machine, and only they speak with a server of that version: \
         install them with `{install}`, or name their directory in PG_BIN"
    )]
    NoPrograms { major: u32, install: String },

    #[error("{} has no {name}: install the whole of postgresql, or name another directory in PG_BIN", .dir.display())]
    NoProgram { dir: PathBuf, name: &'static str },

    #[error("{} is not empty: name a new directory, or empty this one", .path.display())]
    NotEmpty { path: PathBuf },

    #[error("{} is in use by another server{}: stop it, or choose another DATA_DIR",
        .home.display(), .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { home: PathBuf, holder: Option<u32> },

    #[error(
        "the cluster in {} is out of reach for uid {uid}, which postgresql runs under: \
         `chmod o+x {}`, or move the folder and name its new parent in DATA_DIR",
        .home.display(), .closed.display()
    )]
    Closed { home: PathBuf, closed: PathBuf, uid: u32 },

    #[error("{} is not a postgresql cluster: move it away, or choose another DATA_DIR", .data.display())]
    NotACluster { data: PathBuf },

    #[error(
        "{} is a link, or belongs to uid {uid}: remove it, start as that user, or choose another DATA_DIR",
        .path.display()
    )]
    NotOurs { path: PathBuf, uid: u32 },

    #[error(
        "postgresql refuses to run as root, and there is no account postgres or nobody to run it \
         under: add one with `useradd --system postgres`, or start the server as another user"
    )]
    NoAccount,

    #[error("DATA_DIR must be a directory, and {} is a file: move it away, or choose another DATA_DIR", .path.display())]
    NoDirectory { path: PathBuf },

    #[error("cannot {action} {}: see that this user may and that there is room, or choose another DATA_DIR", .path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("cannot run {} as uid {uid}: see that this user may, or name another directory in PG_BIN", .program.display())]
    Spawn { program: PathBuf, uid: u32, source: io::Error },

    #[error("initdb could not make a cluster in {} ({status}): remedy what it says and start again\n{output}", .path.display())]
    Initdb { path: PathBuf, status: ExitStatus, output: String },

    #[error("postgresql ended before it was ready ({status}): remedy what {} says and start again\n{tail}", .log.display())]
    Ended { status: ExitStatus, log: PathBuf, tail: String },

    #[error("postgresql was not ready after {seconds} s: see what {} says and start again\n{tail}", .log.display())]
    NotReady { seconds: u64, log: PathBuf, tail: String },

    #[error("processes {pids:?} of an earlier server still use {} and cannot be ended: end them, then start again", .data.display())]
    Orphans { data: PathBuf, pids: Vec<i32> },

    #[error("postgresql was stopped while it started: start it again")]
    Stopped,
}

/// Names the operation and the path for a failed file operation.
pub(super) fn file<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EmbeddedError + 'a {
    move |source| EmbeddedError::File { action, path: path.to_path_buf(), source }
}
