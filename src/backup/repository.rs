//! A repository of backups: a folder of this machine, or a prefix in a bucket.
//!
//! Determines the instants that can be restored, and fetches what a restore needs to this machine.

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::bucket::Bucket;
use super::folder::Folder;
use super::record::{Backup, Kind};
use super::scratch::Scratch;
use super::seal::Key;
use super::segments::{self, Behind};
use crate::shell::quoted;

/// Maximum number of ranges of instants in an error message.
const RANGES_MAX: usize = 5;

/// A repository of backups.
pub enum Repository {
    /// A folder.
    Folder(Folder),
    /// A prefix in a bucket.
    Bucket(Box<Bucket>),
}

/// A backup on this machine; dropping it removes what was fetched for it.
pub struct Fetched {
    /// The folder that it is in.
    pub folder: Folder,
    /// The backup.
    pub backup: Backup,
    _scratch: Option<Scratch>,
}

impl Repository {
    /// Every complete backup, the oldest first.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub async fn list(&self) -> anyhow::Result<Vec<Backup>> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::Bucket(bucket) => bucket.list().await,
        }
    }

    /// Reads every file of a backup and compares it with what was written.
    ///
    /// # Errors
    /// When a file is missing or differs.
    pub async fn check(&self, backup: &Backup) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => backup.check(&folder.directory(backup)),
            Self::Bucket(bucket) => bucket.check(backup).await,
        }
    }

    /// The first and the last instant that each of these backups can be restored to.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub async fn reaches(&self, backups: &[Backup]) -> anyhow::Result<Vec<(Timestamp, Timestamp)>> {
        let first = backups.iter().map(|backup| backup.state.instant()).collect::<anyhow::Result<Vec<_>>>()?;
        let last = match self {
            Self::Folder(folder) => {
                backups.iter().map(|backup| segments::reach(folder, backup)).collect::<anyhow::Result<_>>()?
            }
            Self::Bucket(bucket) => bucket.reaches(backups).await?,
        };
        Ok(first.into_iter().zip(last).collect())
    }

    /// Chooses the backup with this id, or the newest that can be restored to the instant.
    async fn choose(&self, mut all: Vec<Backup>, id: Option<&str>, at: Option<Timestamp>) -> anyhow::Result<Backup> {
        if let Some(id) = id {
            let known = all.iter().map(|backup| backup.id.as_str()).collect::<Vec<_>>().join(", ");
            all.retain(|backup| backup.id == id);
            if all.is_empty() {
                bail!("there is no backup {id}; the backups are {known}");
            }
        }
        let Some(at) = at else { return Ok(all.pop().expect("not empty")) };
        if let (Some(_), Kind::Logical) = (id, all[0].kind) {
            bail!("a logical backup is of one instant, {}; omit --at", all[0].state.at);
        }
        all.retain(|backup| backup.kind == Kind::Physical);
        let ranges = self.reaches(&all).await?;
        let fit = all.into_iter().zip(&ranges).rfind(|(_, (first, last))| (first..=last).contains(&&at));
        fit.map(|(backup, _)| backup).with_context(|| {
            let future = if at > Timestamp::now() { ", which is in the future" } else { "" };
            let whose = id.map_or("no backup".to_owned(), |id| format!("backup {id}"));
            let can = if id.is_some() { "cannot" } else { "can" };
            format!("{whose} {can} be restored to {at}{future}; {}", restorable_ranges(ranges))
        })
    }

    /// Fetches the backup with this id, or the newest that can be restored to the instant, with the WAL after it up to that
    /// instant, or all of it if `to_end`.
    ///
    /// # Errors
    /// When there is none, the key is not that of the backup, its record was changed, or it cannot be read.
    pub async fn fetch(
        &self,
        id: Option<&str>,
        at: Option<Timestamp>,
        key: Option<&Key>,
        to_end: bool,
    ) -> anyhow::Result<Fetched> {
        let name = match self {
            Self::Folder(folder) => folder.path().display().to_string(),
            Self::Bucket(bucket) => bucket.name(),
        };
        let all = self.list().await?;
        if all.is_empty() {
            bail!("there is no backup in {name}; `pycrudapi backup --to {}` creates one", quoted(&name));
        }
        let backup = self.choose(all.clone(), id, at).await?;
        backup.expect_key(key)?;
        match self {
            Self::Folder(folder) => {
                let backup = backup.clone().verified(&folder.directory(&backup), key)?;
                Ok(Fetched { folder: folder.clone(), backup, _scratch: None })
            }
            Self::Bucket(bucket) => {
                let scratch = Scratch::within(&std::env::temp_dir(), 0o700)?;
                let folder = Folder::open(scratch.path())?;
                bucket.fetch(&backup, &folder).await?;
                let backup = backup.clone().verified(&folder.directory(&backup), key)?;
                bucket.fetch_wal(&backup, &Behind::of(&backup, &all, at, to_end), &folder).await?;
                Ok(Fetched { folder, backup, _scratch: Some(scratch) })
            }
        }
    }
}

/// The instants that can be restored, as text; ranges without a gap between them are merged.
fn restorable_ranges(mut ranges: Vec<(Timestamp, Timestamp)>) -> String {
    ranges.sort();
    let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let left_out = merged.len().saturating_sub(RANGES_MAX);
    let words: Vec<String> = merged
        .iter()
        .skip(left_out)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first} to {last}") })
        .collect();
    match (words.is_empty(), left_out) {
        (true, _) => "all backups are logical, each of one instant; omit --at, or choose one with --backup".to_owned(),
        (false, 0) => format!("the restorable instants are {}", words.join(", ")),
        (false, _) => format!(
            "the newest restorable instants are {}; `pycrudapi backups` lists {left_out} earlier ones",
            words.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_without_a_gap_are_one_range_and_a_long_list_ends_with_the_newest() {
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        assert_eq!(
            restorable_ranges(vec![(at(5), at(5)), (at(0), at(2)), (at(1), at(3))]),
            "the restorable instants are 1970-01-01T00:00:00Z to 1970-01-01T00:00:03Z, 1970-01-01T00:00:05Z"
        );
        let many = restorable_ranges((0..9).map(|second| (at(second), at(second))).collect());
        assert!(many.contains("00:00:04Z, ") && !many.contains("00:00:03Z"), "{many}");
        assert!(many.ends_with("`pycrudapi backups` lists 4 earlier ones"), "{many}");
        assert!(restorable_ranges(Vec::new()).contains("omit --at"));
    }
}
