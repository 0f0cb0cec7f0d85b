//! Errors of disks, reported uniformly: a full disk, and paths that this user may not read or write.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use tokio_postgres::error::SqlState;

/// Texts by which the system and PostgreSQL's programs report a full disk.
const SIGNS: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Check free disk space"];

/// A full disk.
#[derive(Debug)]
pub struct Full {
    /// A path on it; none for the disk of the database server.
    path: Option<PathBuf>,
    /// Measured when the error occurred, before incomplete files are removed.
    free_bytes: Option<u64>,
    needed_bytes: Option<u64>,
}

impl Full {
    fn at(path: Option<&Path>, needed_bytes: Option<u64>) -> Self {
        Self { path: path.map(Path::to_path_buf), free_bytes: path.and_then(free_bytes), needed_bytes }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(formatter, "the disk of {} is full", path.display())?,
            None => write!(formatter, "the disk of the database's server is full")?,
        }
        match (self.free_bytes, self.needed_bytes) {
            (Some(free), Some(needed)) => write!(formatter, " ({} free, {} needed)", size(free), size(needed))?,
            (Some(free), None) => write!(formatter, " ({} free)", size(free))?,
            (None, Some(needed)) => write!(formatter, " ({} needed)", size(needed))?,
            (None, None) => {}
        }
        write!(
            formatter,
            ": free space there and run the command again; incomplete files are removed, and earlier backups are unaffected"
        )
    }
}

impl Error for Full {}

/// Adds to an error that is caused by a full disk which disk that is, unless it has that already.
pub fn explain_disk_full(error: anyhow::Error, path: Option<&Path>) -> anyhow::Error {
    if error.downcast_ref::<Full>().is_some() || !is_full(&error) {
        return error;
    }
    error.context(Full::at(path, None))
}

fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
            || cause.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code)
                == Some(&SqlState::DISK_FULL)
            || says_full(&cause.to_string())
    })
}

/// Whether a program's output reports a full disk.
pub fn says_full(said: &str) -> bool {
    SIGNS.iter().any(|sign| said.contains(sign))
}

/// Requires a disk to have room, before anything is written to it.
///
/// # Errors
/// When it has less.
pub fn expect_room(path: &Path, needed_bytes: u64) -> anyhow::Result<()> {
    if free_bytes(path).is_some_and(|free| free < needed_bytes) {
        return Err(Full::at(Some(path), Some(needed_bytes)).into());
    }
    Ok(())
}

/// The number of bytes that this user can still write there; none when the system does not report it.
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = path.ancestors().find_map(|path| statvfs(path).ok())?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The error for a file or folder that cannot be written, with the remedy.
pub fn unwritable(path: &Path, error: io::Error) -> anyhow::Error {
    let said = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let error = anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
            return error.context(Full::at(Some(path), None));
        }
        ErrorKind::PermissionDenied => {
            format!("{} may not write {}: let that user, or run this as another", user(), path.display())
        }
        ErrorKind::ReadOnlyFilesystem => format!("cannot write {}: its disk is mounted read-only", path.display()),
        _ => format!("cannot write {}: check the path and its disk", path.display()),
    };
    anyhow::Error::new(error).context(said)
}

/// The error for a file or folder that cannot be read, with the remedy.
pub fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    let said = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{} may not read {}: let that user, or run this as another", user(), path.display())
        }
        _ => format!("cannot read {}", path.display()),
    };
    anyhow::Error::new(error).context(said)
}

/// The entries of a folder in the order of their names; none when it does not exist.
///
/// # Errors
/// When it cannot be read.
pub fn entries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let mut paths = listed.map_err(|error| unreadable(path, error))?;
    paths.sort();
    Ok(paths)
}

/// The last part of a path.
pub fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The user of this process, by name if there is one.
fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_ours = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
    match accounts.lines().find(is_ours).and_then(|line| line.split(':').next()) {
        Some(name) => format!("user {name}"),
        None => format!("user {uid}"),
    }
}

/// A length with a unit, rounded up.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    // The largest unit that is not greater than the length.
    let unit = (1..UNITS.len()).rev().find(|unit| bytes >= 1 << (10 * (unit + 1))).unwrap_or_default();
    format!("{} {}", bytes.div_ceil(1 << (10 * (unit + 1))), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;
    use crate::db::error_chain::error_chain;

    #[test]
    fn a_size_has_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 KiB"),
            (1, "1 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 30) + 1, "2 GiB"),
            (1 << 40, "1 TiB"),
            (5 << 40, "5 TiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn a_full_disk_is_reported_the_same_way_wherever_it_occurs() {
        let place = Path::new("/");
        let error = || io::Error::from(ErrorKind::StorageFull);
        let said =
            anyhow!("postgresql ended: could not extend file: No space left on device").context("cannot restore");
        // PostgreSQL's own words, where the system wrote a part.
        let short = anyhow!("could not extend file: wrote only 4096 of 8192 bytes\nHINT:  Check free disk space.");
        let failures = [
            explain_disk_full(short, Some(place)),
            unwritable(place, error()),
            explain_disk_full(unwritable(place, error()), None),
            explain_disk_full(anyhow::Error::new(error()).context("cannot unpack base/1"), Some(place)),
            explain_disk_full(said, Some(place)),
        ];
        for failure in failures {
            let said = error_chain(failure.as_ref());
            assert!(said.starts_with("the disk of / is full (") && said.contains("free space there"), "{said}");
            assert_eq!(said.matches("free space").count(), 1, "{said}");
        }
        let other = explain_disk_full(anyhow!("else"), Some(place)).to_string();
        assert_eq!(other, "else");
        let room = expect_room(place, u64::MAX).context("cannot restore").expect_err("refused");
        assert!(error_chain(room.as_ref()).contains("16777216 TiB needed"), "{room:#}");
    }

    #[test]
    fn what_may_not_be_read_or_written_is_named_with_the_user() {
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        for said in [unreadable(Path::new("/a"), denied()), unwritable(Path::new("/a"), denied())] {
            let said = said.to_string();
            assert!(said.starts_with("user ") && said.contains(" /a: let that user"), "{said}");
        }
    }
}
