//! A folder of backups: lists them, admits one writer at a time, and applies retention.
//!
//! Invariant: only three things are removed: a backup that is not the newest, WAL before the first backup that is kept, and the
//! remains of an interrupted run, which only the holder of the lock can tell from a backup in progress.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::disk::{self, name_of, unreadable, unwritable};
use super::record::{Backup, FILE, FILE_MAX_BYTES};
use super::seal::Key;
use crate::short_file;

/// The suffix of the name of an incomplete backup.
const PARTIAL: &str = ".partial";
/// The folder of continuously received WAL.
pub const WAL: &str = "wal";
/// The format of a backup's name.
const ID: &str = "%Y%m%dT%H%M%SZ";

/// A folder of backups.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// The exclusive right to write into a folder, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// How long backups are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// The number of newest backups to keep.
    pub count: Option<u32>,
    /// The age below which backups are kept.
    pub age: Option<Duration>,
}

/// An incomplete backup; dropping it removes it.
#[derive(Debug)]
pub struct Partial {
    /// Its id when it is complete.
    pub id: String,
    path: PathBuf,
    folder: PathBuf,
    is_done: bool,
}

impl Folder {
    /// Opens the folder, and creates it when it is missing.
    ///
    /// # Errors
    /// When it cannot be created, or the path is not a folder.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        // Absolute, because the programs that write into it have another working directory.
        let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| unwritable(&path, error))?;
        Ok(Self { path })
    }

    /// Opens an existing folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Self { path }),
            Ok(_) => bail!("{} is not a directory; specify the directory of the backups", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("the directory {} does not exist; `pycrudapi backup --to` creates it", path.display())
            }
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of received WAL.
    pub fn wal(&self) -> PathBuf {
        self.path.join(WAL)
    }

    /// The folder of WAL received from the timeline of a segment and from the timelines that follow it in the same run. A
    /// restored cluster is on another timeline than its original, with segments at the same places in WAL.
    pub fn wal_of(&self, segment: &str) -> PathBuf {
        self.wal().join(&segment[..8])
    }

    /// All received files, of every timeline.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn received(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for timeline in disk::entries(&self.wal())?.iter().filter(|path| path.is_dir()) {
            found.extend(disk::entries(timeline)?);
        }
        Ok(found)
    }

    /// The directory of a backup.
    pub fn directory(&self, backup: &Backup) -> PathBuf {
        self.path.join(&backup.id)
    }

    /// Locks the folder for writing, and removes the remains of an interrupted run.
    ///
    /// # Errors
    /// When another process holds the lock, or the folder cannot be written.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let lock =
            lock(&self.path.join("lock"), "another backup into the same folder is running; wait until it has ended")?;
        for path in disk::entries(&self.path)? {
            // Other software may have files with this suffix in the folder.
            if name_of(&path).strip_suffix(PARTIAL).is_some_and(|id| time_of(id).is_some()) {
                tracing::warn!(backup = %path.display(), "removing the remains of an interrupted backup");
                fs::remove_dir_all(&path).map_err(|error| unwritable(&path, error))?;
            }
        }
        Ok(lock)
    }

    /// Every complete backup, the oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read. A backup without a valid record is skipped with a warning.
    pub fn list(&self) -> anyhow::Result<Vec<Backup>> {
        let mut found = Vec::new();
        for path in disk::entries(&self.path)? {
            let name = name_of(&path);
            if time_of(&name).is_none() {
                continue;
            }
            let record = path.join(FILE);
            match short_file::read(&record, FILE_MAX_BYTES) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(unreadable(&record, error)),
                Err(error) => pass_over(&name, &error),
                Ok(text) => found.extend(understood(&name, &text)),
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }

    /// Begins a backup.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn begin(&self, _lock: &Lock) -> anyhow::Result<Partial> {
        let mut now = Timestamp::now();
        let mut id = now.strftime(ID).to_string();
        // Two backups may begin in the same second.
        while self.path.join(&id).exists() {
            now += Duration::from_secs(1);
            id = now.strftime(ID).to_string();
        }
        let path = self.path.join(format!("{id}{PARTIAL}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| unwritable(&path, error))?;
        Ok(Partial { id, path, folder: self.path.clone(), is_done: false })
    }

    /// Removes the backups and WAL that need not be kept, and returns the ids of the removed backups.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget(&self, retention: Retention, lock: &Lock) -> anyhow::Result<Vec<String>> {
        let all = self.list()?;
        let removed = superfluous(&all, retention, Timestamp::now());
        for id in &removed {
            self.remove(id, lock)?;
        }
        let kept = all.iter().filter(|backup| !removed.contains(&backup.id));
        if let Some(first) = first_wal(kept) {
            for path in self.received()? {
                let name = name_of(&path);
                if is_segment(&name) && segment_position(&name) < first {
                    fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
                }
            }
        }
        Ok(removed)
    }

    /// Removes a backup.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, id: &str, _lock: &Lock) -> anyhow::Result<()> {
        // The rename removes it from the list in one step, whatever happens to the rest.
        let (from, aside) = (self.path.join(id), self.path.join(format!("{id}{PARTIAL}")));
        fs::rename(&from, &aside).map_err(|error| unwritable(&from, error))?;
        fs::remove_dir_all(&aside).map_err(|error| unwritable(&aside, error))
    }
}

/// When the backup with this name was begun; none when this is not the name of a backup.
pub fn time_of(name: &str) -> Option<Timestamp> {
    Timestamp::strptime(ID.replace('Z', "%z"), name.replace('Z', "+0000")).ok()
}

/// Parses a record; none, with a warning, when it is not valid.
pub fn understood(name: &str, text: &[u8]) -> Option<Backup> {
    match serde_json::from_slice::<Backup>(text) {
        Ok(backup) if backup.id == name && backup.is_well_formed() => return Some(backup),
        Ok(backup) if backup.id == name => tracing::warn!(backup = name, "skipping a backup with an invalid record"),
        Ok(_) => tracing::warn!(backup = name, "skipping a backup whose record belongs to another one"),
        Err(error) => pass_over(name, &error),
    }
    None
}

fn pass_over(name: &str, error: &dyn std::error::Error) {
    let reason = error.to_string();
    tracing::warn!(backup = name, reason, "skipping a backup without a valid record");
}

/// Locks a file; the kernel releases the lock when the process ends.
///
/// # Errors
/// When another process holds the lock.
pub fn lock(path: &Path, taken: &'static str) -> anyhow::Result<Lock> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| unwritable(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => bail!("{} is locked: {taken}", path.display()),
        Err(TryLockError::Error(error)) => Err(unwritable(path, error)),
    }
}

/// The backups that retention removes; never the newest.
pub fn superfluous(all: &[Backup], retention: Retention, now: Timestamp) -> Vec<String> {
    if retention.count.is_none() && retention.age.is_none() {
        return Vec::new();
    }
    let count = retention.count.map_or(0, |count| count as usize).max(1);
    let is_young = |backup: &&Backup| {
        let age = backup.state.instant().ok().map(|at| now.duration_since(at));
        // A backup of unknown age is kept.
        retention.age.is_some_and(|limit| age.is_none_or(|age| age.unsigned_abs() < limit))
    };
    let old = all.iter().rev().skip(count).filter(|backup| !is_young(backup));
    old.map(|backup| backup.id.clone()).collect()
}

/// The position of the first segment of WAL that one of these backups needs.
pub fn first_wal<'a>(backups: impl Iterator<Item = &'a Backup>) -> Option<&'a str> {
    backups.filter_map(|backup| backup.wal.as_ref()).map(|wal| segment_position(&wal.first)).min()
}

/// Whether this is the name of a segment of WAL, complete or not, encrypted or not.
pub fn is_segment(name: &str) -> bool {
    let digits = name.get(..24).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits && !name.contains(".history")
}

/// The part of a segment's name that orders segments in WAL, without the timeline.
pub fn segment_position(name: &str) -> &str {
    &name[8..24]
}

/// Syncs the entries of a directory.
///
/// # Errors
/// When it cannot be synced.
pub fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| unwritable(path, error))
}

impl Partial {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all files again, and gives the backup its final name; with a key, its record is signed.
    ///
    /// # Errors
    /// When a file differs from what was written, or the disk cannot be written.
    pub fn finish(mut self, backup: &Backup, key: Option<&Key>) -> anyhow::Result<()> {
        backup.check(&self.path)?;
        let record = self.path.join(FILE);
        let text = backup.to_text(key).context("cannot write the record")?;
        let write = || {
            let mut file = File::create_new(&record)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| unwritable(&record, error))?;
        for directory in backup.files.iter().filter_map(|file| Path::new(&file.path).parent()) {
            sync(&self.path.join(directory))?;
        }
        sync(&self.path)?;
        let whole = self.folder.join(&self.id);
        fs::rename(&self.path, &whole).map_err(|error| unwritable(&whole, error))?;
        self.is_done = true;
        sync(&self.folder)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The next run removes what cannot be removed now.
        if !self.is_done {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::record::tests::empty;
    use crate::backup::record::{Kind, State};

    fn backup(hours_ago: i64) -> Backup {
        let at = Timestamp::UNIX_EPOCH + Duration::from_secs(1000 * 3600) - jiff::SignedDuration::from_hours(hours_ago);
        Backup {
            id: at.strftime(ID).to_string(),
            kind: Kind::Physical,
            state: State { at: at.to_string(), lsn: String::new(), tables: Vec::new() },
            ..empty()
        }
    }

    #[test]
    fn what_is_one_of_the_newest_or_young_is_kept_and_the_newest_always() {
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1000 * 3600);
        let all: Vec<Backup> = [90, 60, 30, 10].into_iter().map(backup).collect();
        let removed = |count, hours: Option<u64>| {
            let age = hours.map(|hours| Duration::from_secs(hours * 3600));
            superfluous(&all, Retention { count, age }, now).len()
        };
        assert_eq!(removed(None, None), 0);
        assert_eq!(removed(Some(1), None), 3);
        assert_eq!(removed(Some(9), None), 0);
        assert_eq!(removed(None, Some(1)), 3, "the newest is kept although it is old");
        assert_eq!(removed(None, Some(61)), 1);
        assert_eq!(removed(Some(1), Some(61)), 1, "either is a reason to keep it");
    }

    #[test]
    fn a_segment_is_known_by_its_digits() {
        for name in ["000000010000000000000002", "000000010000000000000002.partial", "000000010000000000000002.sealed"]
        {
            assert!(is_segment(name), "{name}");
            assert_eq!(segment_position(name), "0000000000000002");
        }
        for name in ["00000002.history", "received.json", "00000001000000000000000"] {
            assert!(!is_segment(name), "{name}");
        }
    }
}
