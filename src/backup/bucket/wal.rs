//! Continuously received WAL in a bucket: `wal/TIMELINE/SEGMENT`, as in a folder, by the timeline at which following began.
//!
//! An incomplete segment is stored in pieces, `SEGMENT.OFFSET.partial`, each with the bytes from OFFSET on. WAL is append-only,
//! so pieces of different runs may overlap, and pieces that remain beside the complete segment have the same bytes.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;

use super::Bucket;
use crate::backup::disk;
use crate::backup::folder::{Folder, WAL, is_segment};
use crate::backup::record::{Backup, FILE_MAX_BYTES};
use crate::backup::seal::{SUFFIX, Written};
use crate::backup::segments::{self, Behind, PARTIAL, RECEIVED, Received};
use crate::short_file::Bounded;

/// Number of attempts to list WAL: a piece is removed between the list and its download when its segment is completed.
const LISTINGS: usize = 5;

impl Bucket {
    fn wal_key(&self, timeline: &str, name: &str) -> String {
        self.key(WAL, &format!("{timeline}/{name}"))
    }

    /// The names of all files received from a timeline.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn received_names(&self, timeline: &str) -> anyhow::Result<Vec<String>> {
        let prefix = self.wal_key(timeline, "");
        let keys = self.names(&prefix, "", "Key").await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    async fn received(&self, timeline: &str) -> anyhow::Result<Option<Received>> {
        let key = self.wal_key(timeline, RECEIVED);
        let mut text = Bounded::new(FILE_MAX_BYTES);
        if !self.store.read(&key, &mut text).await? {
            return Ok(None);
        }
        let damaged = || format!("{key} in the bucket is damaged; remove it; `backup --follow` writes it again");
        serde_json::from_slice(&text.bytes).map(Some).with_context(damaged)
    }

    /// Stores the instant up to which everything was received.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not have what was sent.
    pub async fn store_received(&self, timeline: &str, received: &Received) -> anyhow::Result<()> {
        let text = serde_json::to_vec(received).context("cannot write what was received")?;
        self.store_bytes(&self.wal_key(timeline, RECEIVED), text).await
    }

    /// Stores a file of WAL.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not have what was sent.
    pub async fn store_wal(&self, timeline: &str, name: &str, from: &Path, written: &Written) -> anyhow::Result<()> {
        self.store_file(from, &self.wal_key(timeline, name), written, &from.with_extension("upload")).await
    }

    /// Removes a file of WAL.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not allow it.
    pub async fn remove_wal(&self, timeline: &str, name: &str) -> anyhow::Result<()> {
        self.delete(&self.wal_key(timeline, name)).await
    }

    /// The last instant that each of these backups can be restored to.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn reaches(&self, backups: &[Backup]) -> anyhow::Result<Vec<Timestamp>> {
        let mut known = HashMap::new();
        let mut reaches = Vec::new();
        for backup in backups {
            let Some(wal) = &backup.wal else {
                reaches.push(backup.state.instant()?);
                continue;
            };
            let timeline = &wal.first[..8];
            if !known.contains_key(timeline) {
                // In this order, so that the list has everything received by that instant.
                let received = self.received(timeline).await?;
                known.insert(timeline, (received, self.received_names(timeline).await?));
            }
            let (received, names) = &known[timeline];
            reaches.push(segments::reached(backup, received.as_ref(), names.iter().map(String::as_str))?);
        }
        Ok(reaches)
    }

    /// Downloads WAL after a backup, and the histories of all timelines.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the disk has no room.
    pub async fn fetch_wal(&self, backup: &Backup, behind: &Behind, into: &Folder) -> anyhow::Result<()> {
        let Some(wal) = &backup.wal else { return Ok(()) };
        let line = format!("{WAL}/{}/", &wal.first[..8]);
        let is_needed = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_of_backup = path.starts_with(&line) && name.ends_with(SUFFIX) == backup.key.is_some();
            name.trim_end_matches(SUFFIX).ends_with(".history")
                || (is_of_backup && is_segment(name) && behind.includes(&wal.last, name))
        };
        for _ in 0..LISTINGS {
            let keys = self.names(&self.key(WAL, ""), "", "Key").await?;
            let paths = keys.iter().filter_map(|key| key.strip_prefix(&self.address.prefix));
            // A piece may have become longer.
            let is_missing = |path: &str| path.contains(PARTIAL) || !into.path().join(path).exists();
            let needed: Vec<&str> = paths.filter(|path| is_needed(path) && is_missing(path)).collect();
            let whole = needed.iter().filter(|path| !path.contains(PARTIAL)).count() as u64;
            disk::expect_room(into.path(), wal.segment_bytes * (whole + 1))?;
            let mut is_complete = true;
            for path in needed {
                is_complete &= self.download(path, into).await?;
            }
            if is_complete {
                return Ok(());
            }
        }
        bail!("the WAL after backup {} changes while it is read; try again", backup.id)
    }
}
