//! `postmaster.pid`, in which PostgreSQL records which process serves a cluster.
//!
//! The file is never deleted: it contains the key of the shared memory by which PostgreSQL detects that processes of a killed
//! server still write to the files. Invariant: everything but the first line stays as PostgreSQL wrote it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use super::error::{self, EmbeddedError};
use super::files;

/// The line with PostgreSQL's state, counted from 0.
const STATUS_LINE: usize = 7;
/// The line with its socket directory.
const SOCKET_LINE: usize = 4;

/// Content of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub pid: i32,
    /// Connections are accepted; false while the server starts, recovers or stops.
    pub ready: bool,
}

/// Reads the file of the cluster in `data`; none if it does not exist or is incomplete.
pub(super) fn read(data: &Path) -> Option<Claim> {
    parse(&fs::read_to_string(path(data)).ok()?)
}

/// The socket directory of the server that runs the cluster, if it accepts connections.
pub(super) fn socket_dir(data: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(path(data)).ok()?;
    parse(&text).filter(|claim| claim.ready)?;
    text.lines().nth(SOCKET_LINE).map(PathBuf::from)
}

fn path(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

fn parse(text: &str) -> Option<Claim> {
    let pid = text.lines().next()?.trim().parse().ok()?;
    let ready = text.lines().nth(STATUS_LINE).is_some_and(|line| line.trim() == "ready");
    Some(Claim { pid, ready })
}

/// Invalidates a leftover file, once no process of the cluster is alive: its pid may belong to another process by now, even a
/// zombie, which PostgreSQL would take for a live postmaster. With this process's pid instead, PostgreSQL finds its own parent,
/// recognises the file as stale, and still checks the shared memory.
pub(super) fn disown(data: &Path) -> Result<(), EmbeddedError> {
    let file = path(data);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(failure) if failure.kind() == ErrorKind::NotFound => return Ok(()),
        Err(failure) => return Err(error::file("read", &file)(failure)),
    };
    let Some(disowned) = with_pid(&text, std::process::id()) else {
        return Ok(());
    };
    // Written to a temporary file and renamed, so that the file is never incomplete.
    let aside = file.with_extension("pid.new");
    let replace = || {
        let owner = fs::metadata(&file)?;
        // Must be newly created: the directory belongs to the account, which might have placed a link there.
        let _ = fs::remove_file(&aside);
        let mut new = fs::File::create_new(&aside)?;
        new.write_all(disowned.as_bytes())?;
        fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
        new.set_permissions(owner.permissions())?;
        fs::rename(&aside, &file)
    };
    replace().map_err(error::file("rewrite", &file))?;
    files::sync_dir(data)
}

/// Replaces the pid in the text. An empty file is from a postmaster that was killed before it wrote the file, and therefore
/// before it had shared memory; any other text without a pid is left to PostgreSQL.
fn with_pid(text: &str, pid: u32) -> Option<String> {
    if text.is_empty() {
        return Some(format!("{pid}\n"));
    }
    parse(text)?;
    let (_, rest) = text.split_once('\n').unwrap_or((text, ""));
    Some(format!("{pid}\n{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "71\n/d\n1700000000\n5432\n/d/run\n\n  5267 3\nready   \n";

    #[test]
    fn ready_is_read_from_its_line() {
        assert_eq!(parse(RUNNING), Some(Claim { pid: 71, ready: true }));
        assert_eq!(parse(&RUNNING.replace("ready   ", "starting")), Some(Claim { pid: 71, ready: false }));
        assert_eq!(parse("71\n/ready"), Some(Claim { pid: 71, ready: false }), "incomplete");
        assert_eq!(parse(""), None);
    }

    #[test]
    fn only_the_pid_is_replaced() {
        assert_eq!(with_pid(RUNNING, 4).as_deref(), Some(&*RUNNING.replacen("71", "4", 1)));
        assert_eq!(with_pid("", 4).as_deref(), Some("4\n"));
        assert_eq!(with_pid("nonsense", 4), None);
    }
}
