//! Backups in a bucket of an object store: those of a folder, under the same names behind a prefix.
//!
//! A backup is made in a folder of this machine, the stage, and uploaded from there. What an interrupted run has left in the
//! stage is uploaded by the next, from the first missing part on. Invariant: the record of a backup is written last, when
//! everything else was read back and compared, and removed first: what is listed is complete.

mod sign;
mod store;
mod upload;
mod wal;

use std::fs::{self, File};
use std::path::{Component, Path};
use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use warp::http::Method;

use super::disk::{self, unwritable};
use super::folder::{self, Folder, Retention, is_segment, segment_position};
use super::record::{Backup, FILE, FILE_MAX_BYTES};
use super::scratch;
use crate::masked::masked;
use crate::short_file::Bounded;
pub use sign::Access;
pub use store::Store;
use store::{Ask, elements};

/// The scheme of an address in a bucket.
const SCHEME: &str = "s3://";
/// An upload that is not complete after this time is taken as abandoned.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A bucket, and the prefix of the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The bucket.
    pub bucket: String,
    prefix: String,
}

impl Address {
    /// Reads `s3://bucket/prefix`; none when the text is a folder.
    ///
    /// # Errors
    /// When it has no bucket, or is an address of another kind, which is not meant as the name of a folder.
    pub fn parse(text: &str) -> anyhow::Result<Option<Self>> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            if text.contains("://") || text.starts_with("s3:") {
                bail!("{}: expected a folder or s3://bucket/prefix", masked(text));
            }
            return Ok(None);
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_name) {
            bail!("{} names no bucket; expected s3://bucket/prefix", masked(text));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Some(Self { bucket: bucket.to_owned(), prefix }))
    }
}

/// A prefix in a bucket, with the access to it.
#[derive(Clone)]
pub struct Bucket {
    store: Store,
    address: Address,
}

impl Bucket {
    /// The prefix in the store's bucket.
    pub fn new(store: Store, address: Address) -> Self {
        Self { store, address }
    }

    /// Its address.
    pub fn name(&self) -> String {
        format!("{SCHEME}{}/{}", self.address.bucket, self.address.prefix)
    }

    fn key(&self, id: &str, path: &str) -> String {
        format!("{}{id}/{path}", self.address.prefix)
    }

    /// The stage of this address: a private folder in `TMPDIR`, the same for every run.
    ///
    /// # Errors
    /// When it cannot be made, or belongs to another user.
    pub fn stage(&self) -> anyhow::Result<Folder> {
        let mark = &sign::sha256(self.name().as_bytes())[..16];
        Folder::create(&scratch::private(&format!("pycrudapi-stage-{mark}"))?)
    }

    /// Every complete backup, the oldest first.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn list(&self) -> anyhow::Result<Vec<Backup>> {
        Ok(self.look().await?.0)
    }

    /// The complete backups, and the names of the incomplete ones.
    async fn look(&self) -> anyhow::Result<(Vec<Backup>, Vec<String>)> {
        let (mut whole, mut others) = (Vec::new(), Vec::new());
        for prefix in self.names(&self.address.prefix, "/", "Prefix").await? {
            let id = prefix.trim_start_matches(&self.address.prefix).trim_end_matches('/');
            if folder::time_of(id).is_none() {
                continue;
            }
            let mut text = Bounded::new(FILE_MAX_BYTES);
            if !self.store.read(&self.key(id, FILE), &mut text).await? {
                others.push(id.to_owned());
            } else if let Some(backup) = folder::understood(id, &text.bytes) {
                whole.push(backup);
            }
        }
        whole.sort_by(|one, other| one.id.cmp(&other.id));
        Ok((whole, others))
    }

    /// All names that begin with a prefix, from the elements `tag`.
    async fn names(&self, prefix: &str, delimiter: &str, tag: &str) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            query.extend((!delimiter.is_empty()).then_some(("delimiter", delimiter)));
            query.extend(next.as_deref().map(|next| ("continuation-token", next)));
            let (body, _) = self.store.expect(&Ask { query: &query, ..Ask::default() }).await?;
            let text = String::from_utf8_lossy(&body);
            let around = if delimiter.is_empty() { "Contents" } else { "CommonPrefixes" };
            names.extend(elements_within(&text, around, tag));
            next = elements(&text, "NextContinuationToken").into_iter().next();
            if next.is_none() {
                return Ok(names);
            }
        }
    }

    /// Reads every file and compares it with what was written.
    ///
    /// # Errors
    /// The first that is missing or differs.
    pub async fn check(&self, backup: &Backup) -> anyhow::Result<()> {
        for file in &backup.files {
            let key = self.key(&backup.id, &file.path);
            if !self.has(&key, &file.written()).await? {
                bail!("backup {} is damaged: {key} is missing, or not what was written", backup.id);
            }
        }
        Ok(())
    }

    /// Downloads a backup into a folder of this machine; the caller compares its files with the record.
    ///
    /// # Errors
    /// When a file cannot be read, or the disk has no room.
    pub async fn fetch(&self, backup: &Backup, into: &Folder) -> anyhow::Result<()> {
        disk::expect_room(into.path(), backup.bytes())?;
        for path in backup.files.iter().map(|file| file.path.as_str()).chain([FILE]) {
            let path = format!("{}/{path}", backup.id);
            if !self.download(&path, into).await? {
                bail!("backup {} is damaged: {}{path} is missing", backup.id, self.address.prefix);
            }
        }
        Ok(())
    }

    /// Downloads an object to the same path in a folder; false when there is none.
    async fn download(&self, path: &str, into: &Folder) -> anyhow::Result<bool> {
        if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
            bail!("the bucket is damaged: it has a file {path}");
        }
        let target = into.path().join(path);
        let parent = target.parent().unwrap_or(into.path());
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
        let mut file = File::create(&target).map_err(|error| unwritable(&target, error))?;
        let read = self.store.read(&format!("{}{path}", self.address.prefix), &mut file).await;
        let is_there = read.map_err(|error| disk::explain_disk_full(error, Some(into.path())))?;
        if !is_there {
            fs::remove_file(&target).map_err(|error| unwritable(&target, error))?;
        }
        Ok(is_there)
    }

    /// Removes backups and WAL that need not be kept, and abandoned uploads; returns the ids of the removed backups.
    ///
    /// # Errors
    /// When an object cannot be removed.
    pub async fn forget(&self, retention: Retention) -> anyhow::Result<Vec<String>> {
        // Without retention the access key needs no right to delete.
        if retention.count.is_none() && retention.age.is_none() {
            return Ok(Vec::new());
        }
        let (whole, others) = self.look().await?;
        let now = Timestamp::now();
        let removed = folder::superfluous(&whole, retention, now);
        for id in &removed {
            // Removes it from the list in one step, whatever happens to the rest.
            self.delete(&self.key(id, FILE)).await?;
        }
        let is_given_up =
            |id: &&String| folder::time_of(id).is_some_and(|time| now.duration_since(time).unsigned_abs() > GIVEN_UP);
        for id in removed.iter().chain(others.iter().filter(is_given_up)) {
            for key in self.names(&self.key(id, ""), "", "Key").await? {
                self.delete(&key).await?;
            }
        }
        let kept = whole.iter().filter(|backup| !removed.contains(&backup.id));
        if let Some(first) = folder::first_wal(kept) {
            for key in self.names(&self.key(folder::WAL, ""), "", "Key").await? {
                let name = key.rsplit('/').next().unwrap_or_default();
                if is_segment(name) && segment_position(name) < first {
                    self.delete(&key).await?;
                }
            }
        }
        Ok(removed)
    }

    async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.store.expect(&Ask { method: Method::DELETE, key, ..Ask::default() }).await.map(drop)
    }
}

/// The texts of the elements `tag` inside of elements `around`.
fn elements_within(xml: &str, around: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{around}>"), format!("</{around}>"));
    let inside = xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    inside.flat_map(|inside| elements(inside, tag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_bucket_is_told_from_a_folder() {
        let of = |text| Address::parse(text).expect("an address").map(|address| (address.bucket, address.prefix));
        assert_eq!(of("/backups"), None);
        assert_eq!(of("s3://b"), Some(("b".to_owned(), String::new())));
        assert_eq!(of("s3://b/a/c/"), Some(("b".to_owned(), "a/c/".to_owned())));
        for wrong in [
            "s3://",
            "s3:///prefix",
            "s3://B/prefix",
            "s3://key:secret@b/prefix",
            "S3://b",
            "s3:/b",
            "https://key:secret@b",
        ] {
            let said = Address::parse(wrong).expect_err(wrong).to_string();
            assert!(said.contains("s3://bucket/prefix") && !said.contains("secret"), "{said}");
        }
    }
}
