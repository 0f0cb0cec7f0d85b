//! The files of received WAL, in a folder or a bucket: their names, and the instants that a backup can be restored to with
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::{self, name_of, unreadable, unwritable};
use super::folder::{Folder, is_segment, segment_position};
use super::record::{Backup, Wal};
use super::seal::SUFFIX;
use crate::short_file::{self, SECRET_MAX_BYTES};

/// The suffix of the name of an incomplete segment.
pub const PARTIAL: &str = ".partial";
/// The file that states up to when WAL was received.
pub const RECEIVED: &str = "received.json";

/// Up to when WAL was received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    /// Everything committed by then, by the database's clock, was received.
    pub at: String,
    /// The cluster's system identifier.
    pub system: String,
}

impl Received {
    /// Reads it from a directory; none when no WAL was received into it.
    fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(RECEIVED);
        let text = match short_file::read(&path, SECRET_MAX_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| unreadable(&path, error))?,
        };
        serde_json::from_slice(&text).map(Some).with_context(|| {
            format!("{} is damaged; remove it, and follow again to have it written anew", path.display())
        })
    }

    /// Writes it to a directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let (path, new) = (directory.join(RECEIVED), directory.join("received.new"));
        let text = serde_json::to_string(self).context("cannot write what was received")?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(|error| {
            let _ = fs::remove_file(&new); // incomplete
            unwritable(&path, error)
        })
    }
}

/// The offset of a piece in its segment; none when this is not the name of a piece.
pub fn offset(bare: &str) -> Option<u64> {
    let digits = bare.get(24..)?.strip_prefix('.').filter(|digits| digits.len() == 8)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The name of a piece of a segment.
pub fn piece(segment: &str, offset: u64) -> String {
    format!("{segment}.{offset:08x}{PARTIAL}")
}

/// Which WAL after a backup a restore needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Behind {
    /// None: the backup has what its own instant needs.
    Nothing,
    /// The WAL up to a segment.
    UpTo(String),
    /// All WAL.
    Everything,
}

impl Behind {
    /// What is needed for an instant, or for the end of WAL if `to_end`.
    pub fn of(backup: &Backup, all: &[Backup], at: Option<Timestamp>, to_end: bool) -> Self {
        let Some(at) = at else { return if to_end { Self::Everything } else { Self::Nothing } };
        // The WAL of a later backup has a commit after the instant, at which the replay stops.
        let is_later = |later: &&Backup| later.state.instant().is_ok_and(|instant| instant > at);
        let line = |one: &Backup| (one.system.clone(), one.wal.as_ref().map(|wal| wal.first[..8].to_owned()));
        let later = all.iter().find(|one| line(one) == line(backup) && is_later(one));
        match later.and_then(|later| later.wal.as_ref()) {
            Some(wal) => Self::UpTo(wal.last.clone()),
            None => Self::Everything,
        }
    }

    /// Whether it includes a segment; `own` is the backup's own last one.
    pub fn includes(&self, own: &str, segment: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::UpTo(end) => (segment_position(own)..=segment_position(end)).contains(&segment_position(segment)),
            Self::Everything => segment_position(segment) >= segment_position(own),
        }
    }
}

/// The last instant that a backup in a folder can be restored to.
///
/// # Errors
/// When the folder cannot be read.
pub fn reach(folder: &Folder, backup: &Backup) -> anyhow::Result<Timestamp> {
    let Some(wal) = &backup.wal else { return backup.state.instant() };
    let directory = folder.wal_of(&wal.first);
    let received = Received::read(&directory)?;
    let names: Vec<String> = disk::entries(&directory)?.iter().map(|path| name_of(path)).collect();
    reached(backup, received.as_ref(), names.iter().map(String::as_str))
}

/// The last instant that a backup can be restored to with these files of WAL: its own, or that of the received WAL if no
/// segment is missing in between.
///
/// # Errors
/// When a time cannot be read.
pub fn reached<'a>(
    backup: &Backup,
    received: Option<&Received>,
    names: impl Iterator<Item = &'a str>,
) -> anyhow::Result<Timestamp> {
    let own = backup.state.instant()?;
    let (Some(wal), Some(received)) = (&backup.wal, received) else { return Ok(own) };
    let (found, last) = (numbers(backup, wal, names), segment_number(&wal.last, wal.segment_bytes));
    let is_unbroken =
        found.last_key_value().is_some_and(|(newest, _)| last <= *newest && is_whole(&found, last..*newest));
    let received_at: Timestamp = received.at.parse().context("what was received cannot be read")?;
    Ok(if received.system == backup.system && is_unbroken { received_at.max(own) } else { own })
}

/// Whether no segment is missing between the end of a backup and the segment at which receiving begins.
pub fn leads_to<'a>(backup: &Backup, names: impl Iterator<Item = &'a str>, segment: &str) -> bool {
    let Some(wal) = &backup.wal else { return false };
    is_whole(
        &numbers(backup, wal, names),
        segment_number(&wal.last, wal.segment_bytes)..segment_number(segment, wal.segment_bytes),
    )
}

/// The segments among these files by number, and whether each is complete.
fn numbers<'a>(backup: &Backup, wal: &Wal, names: impl Iterator<Item = &'a str>) -> BTreeMap<u64, bool> {
    let mut found = BTreeMap::new();
    for name in names.filter(|name| is_segment(name) && name.ends_with(SUFFIX) == backup.key.is_some()) {
        *found.entry(segment_number(name, wal.segment_bytes)).or_default() |= !name.contains(PARTIAL);
    }
    found
}

fn is_whole(found: &BTreeMap<u64, bool>, mut range: Range<u64>) -> bool {
    range.all(|number| found.get(&number) == Some(&true))
}

/// The number of a segment, without its timeline.
pub fn segment_number(name: &str, segment_bytes: u64) -> u64 {
    let digits = |range: Range<usize>| u64::from_str_radix(&name[range], 16).unwrap_or_default();
    digits(8..16) * ((1 << 32) / segment_bytes) + digits(16..24)
}

/// The name of a segment.
pub fn segment_name(timeline: &str, number: u64, segment_bytes: u64) -> String {
    let each = (1 << 32) / segment_bytes;
    format!("{timeline}{:08X}{:08X}", number / each, number % each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_the_place_where_it_begins() {
        let segment = "000000010000000000000002";
        assert_eq!(piece(segment, 0x2000), "000000010000000000000002.00002000.partial");
        assert_eq!(offset("000000010000000000000002.00002000"), Some(0x2000));
        for other in [segment, "00000002.history", "000000010000000000000002.part", "received.json"] {
            assert_eq!(offset(other), None, "{other}");
        }
    }

    #[test]
    fn a_segment_that_is_not_whole_is_a_gap() {
        let (name, bytes) = ("000000020000000100000003", 16 << 20);
        assert_eq!(segment_number(name, bytes), 0x103);
        assert_eq!(segment_name("00000002", 0x103, bytes), name);
        let found = BTreeMap::from([(7, true), (8, false), (9, true)]);
        assert!(is_whole(&found, 7..8) && is_whole(&found, 7..7) && !is_whole(&found, 7..9));
    }
}
