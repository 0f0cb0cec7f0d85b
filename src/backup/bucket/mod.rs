//! Backups in a bucket of an object store: those of a folder, under the same names behind a prefix.
//!
//! A backup is made in a folder of this machine, the stage, and goes from there into the bucket. What an interrupted run has left in
//! the stage is uploaded by the next, from the part on that was not. Invariant: the record of a backup is written last, when everything
//! else was read back and compared, and removed first: what is listed is whole.

mod sign;
mod store;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use jiff::Timestamp;
use ring::digest;
use serde::{Deserialize, Serialize};
use warp::http::Method;

use super::disk::{self, unreadable, unwritable};
use super::folder::{self, Folder, Lock, Retention};
use super::record::{Backup, Entry, FILE, FILE_MAX_BYTES};
use super::scratch;
use crate::hexadecimal;
use crate::masked::masked;
use crate::short_file::{self, Bounded};
pub use sign::Access;
pub use store::Store;
use store::{Ask, elements};

/// How a place in a bucket begins.
const SCHEME: &str = "s3://";
/// A part of a file; there are at most 10,000.
const PART_BYTES: u64 = 16 << 20;
const PARTS: u64 = 9_000;
/// What is not whole after so long is nobody's any more.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A place in a bucket: its name, and what names begin with.
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
    /// When there is no bucket in it, or it is another address, which nobody means as the name of a folder.
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

/// A place in a bucket that can be asked.
#[derive(Clone)]
pub struct Bucket {
    store: Store,
    address: Address,
}

/// How far the upload of a file is.
#[derive(Serialize, Deserialize)]
struct Progress {
    path: String,
    upload: String,
    etags: Vec<String>,
}

impl Bucket {
    /// The place in this store's bucket.
    pub fn new(store: Store, address: Address) -> Self {
        Self { store, address }
    }

    /// The place as it is written.
    pub fn name(&self) -> String {
        format!("{SCHEME}{}/{}", self.address.bucket, self.address.prefix)
    }

    fn key(&self, id: &str, path: &str) -> String {
        format!("{}{id}/{path}", self.address.prefix)
    }

    /// The stage of this place: a folder of ours in `TMPDIR`, the same for every run.
    ///
    /// # Errors
    /// When it cannot be made, or is somebody else's.
    pub fn stage(&self) -> anyhow::Result<Folder> {
        let mark = &sign::sha256(self.name().as_bytes())[..16];
        Folder::create(&scratch::private(&format!("pycrudapi-stage-{mark}"))?)
    }

    /// Every whole backup, the oldest first.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn list(&self) -> anyhow::Result<Vec<Backup>> {
        Ok(self.look().await?.0)
    }

    /// Those that are whole, and the names of those that are not.
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

    /// All names behind a prefix, as the elements that hold them.
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

    /// Uploads every backup that is in the stage, and takes it out of there.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not have what was sent; what is in the stage stays for the next run.
    pub async fn take(&self, stage: &Folder, lock: &Lock) -> anyhow::Result<()> {
        for backup in stage.list()? {
            self.upload(stage, &backup).await.with_context(|| {
                format!("backup {} waits in {} for the next run", backup.id, stage.path().display())
            })?;
            stage.remove(&backup.id, lock)?;
        }
        Ok(())
    }

    async fn upload(&self, stage: &Folder, backup: &Backup) -> anyhow::Result<()> {
        let directory = stage.directory(backup);
        for file in &backup.files {
            if self.has(backup, file).await? {
                continue;
            }
            self.send(stage, backup, file).await?;
            if !self.has(backup, file).await? {
                bail!("the store has of {} not what was sent; try again", self.key(&backup.id, &file.path));
            }
        }
        let path = directory.join(FILE);
        let record = short_file::read(&path, FILE_MAX_BYTES).map_err(|error| unreadable(&path, error))?;
        let key = self.key(&backup.id, FILE);
        self.put(&key, &[], record.clone().into()).await?;
        let mut stored = Bounded::new(FILE_MAX_BYTES);
        self.store.read(&key, &mut stored).await?;
        if stored.bytes != record {
            bail!("the store has of {key} not what was sent; try again");
        }
        Ok(())
    }

    async fn put(&self, key: &str, query: &[(&str, &str)], body: Bytes) -> anyhow::Result<Option<String>> {
        Ok(self.store.expect(&Ask { method: Method::PUT, key, query, body }).await?.1)
    }

    /// Whether the bucket has this file as it was written, by reading it.
    async fn has(&self, backup: &Backup, file: &Entry) -> anyhow::Result<bool> {
        let mut measure = Measure { hash: digest::Context::new(&digest::SHA256), bytes: 0 };
        let is_there = self.store.read(&self.key(&backup.id, &file.path), &mut measure).await?;
        let sha256 = hexadecimal::text(measure.hash.finish().as_ref());
        Ok(is_there && measure.bytes == file.bytes && sha256 == file.sha256)
    }

    /// Uploads a file, in parts if it is long.
    async fn send(&self, stage: &Folder, backup: &Backup, file: &Entry) -> anyhow::Result<()> {
        let (path, key) = (stage.directory(backup).join(&file.path), self.key(&backup.id, &file.path));
        let unreadable = || format!("cannot read {}", path.display());
        let mut from = File::open(&path).with_context(unreadable)?;
        let length = PART_BYTES.max(file.bytes.div_ceil(PARTS));
        if file.bytes <= length {
            let mut body = Vec::new();
            from.read_to_end(&mut body).with_context(unreadable)?;
            return self.put(&key, &[], body.into()).await.map(drop);
        }
        // Beside the backup, whose directory holds what its record says.
        let place = stage.path().join(format!("{}.upload", backup.id));
        let mut progress = self.progress(&place, &key).await?;
        while length * (progress.etags.len() as u64) < file.bytes {
            let begin = length * progress.etags.len() as u64;
            from.seek(SeekFrom::Start(begin)).with_context(unreadable)?;
            let mut part = Vec::new();
            (&from).take(length).read_to_end(&mut part).with_context(unreadable)?;
            let number = (progress.etags.len() + 1).to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", progress.upload.as_str())];
            let ask = Ask { method: Method::PUT, key: &key, query: &query, body: part.into() };
            let (_, etag) = match self.store.ask(&ask).await? {
                Ok(answer) => answer,
                Err(refusal) => {
                    // The store may not know this upload any more; the next run begins another.
                    let _ = fs::remove_file(&place);
                    return Err(self.store.explained(refusal));
                }
            };
            progress.etags.push(etag.context("the store names no ETag of a part")?);
            let text = serde_json::to_vec(&progress).context("cannot write how far the upload is")?;
            fs::write(&place, text).map_err(|error| unwritable(&place, error))?;
        }
        let parts = progress.etags.iter().zip(1..).map(|(etag, number)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
        });
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
        let query = [("uploadId", progress.upload.as_str())];
        let ask = Ask { method: Method::POST, key: &key, query: &query, body: body.into() };
        let completed = self.store.expect(&ask).await;
        // Whatever is wrong with it, the next run begins another.
        let _ = fs::remove_file(&place);
        let (answer, _) = completed?;
        // The status is sent before the parts are put together.
        match elements(&String::from_utf8_lossy(&answer), "Code").first() {
            Some(code) => bail!("the store cannot put {key} together ({code}); try again"),
            None => Ok(()),
        }
    }

    /// The upload of a file that was begun, if the store still knows it, or a new one.
    async fn progress(&self, place: &Path, key: &str) -> anyhow::Result<Progress> {
        let known = short_file::read(place, FILE_MAX_BYTES)
            .ok()
            .and_then(|text| serde_json::from_slice::<Progress>(&text).ok());
        if let Some(known) = known.filter(|known| known.path == key) {
            let query = [("uploadId", known.upload.as_str())];
            let asked = self.store.ask(&Ask { key, query: &query, ..Ask::default() }).await?;
            // A store that does not tell the parts, or not to this key, may have them all the same.
            if asked.as_ref().err().is_none_or(|refusal| refusal.code != "NoSuchUpload") {
                tracing::info!(object = key, parts = known.etags.len(), "going on with an upload");
                return Ok(known);
            }
        }
        let begin = Ask { method: Method::POST, key, query: &[("uploads", "")], ..Ask::default() };
        let (body, _) = self.store.expect(&begin).await?;
        let upload = elements(&String::from_utf8_lossy(&body), "UploadId").into_iter().next();
        let upload = upload.context("the store names no upload")?;
        Ok(Progress { path: key.to_owned(), upload, etags: Vec::new() })
    }

    /// Reads every file and compares it with what was written.
    ///
    /// # Errors
    /// The first that is missing or differs.
    pub async fn check(&self, backup: &Backup) -> anyhow::Result<()> {
        for file in &backup.files {
            if !self.has(backup, file).await? {
                let place = self.key(&backup.id, &file.path);
                bail!("backup {} is damaged: {place} is missing, or not what was written", backup.id);
            }
        }
        Ok(())
    }

    /// Brings a backup into a folder of this machine; its files are compared by whoever uses it.
    ///
    /// # Errors
    /// When one cannot be read, or there is no room.
    pub async fn fetch(&self, backup: &Backup, into: &Folder) -> anyhow::Result<()> {
        disk::expect_room(into.path(), backup.bytes())?;
        let directory = into.directory(backup);
        for path in backup.files.iter().map(|file| file.path.as_str()).chain([FILE]) {
            if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("backup {} is damaged: it has a file {path}", backup.id);
            }
            let place: PathBuf = directory.join(path);
            let parent = place.parent().unwrap_or(&directory);
            fs::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
            let mut file = File::create(&place).map_err(|error| unwritable(&place, error))?;
            let read = self.store.read(&self.key(&backup.id, path), &mut file).await;
            if !read.map_err(|error| disk::told_full(error, Some(into.path())))? {
                bail!("backup {} is damaged: {} is missing", backup.id, self.key(&backup.id, path));
            }
        }
        Ok(())
    }

    /// Removes what need not be kept, and what was given up in the middle; says which backups went.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn forget(&self, retention: Retention) -> anyhow::Result<Vec<String>> {
        // A key that may not delete is not asked to.
        if retention.count.is_none() && retention.age.is_none() {
            return Ok(Vec::new());
        }
        let (whole, others) = self.look().await?;
        let now = Timestamp::now();
        let removed = folder::superfluous(&whole, retention, now);
        for id in &removed {
            // Out of the list in one step, whatever happens to the rest.
            self.delete(&self.key(id, FILE)).await?;
        }
        let is_given_up =
            |id: &&String| folder::time_of(id).is_some_and(|time| now.duration_since(time).unsigned_abs() > GIVEN_UP);
        for id in removed.iter().chain(others.iter().filter(is_given_up)) {
            for key in self.names(&self.key(id, ""), "", "Key").await? {
                self.delete(&key).await?;
            }
        }
        Ok(removed)
    }

    async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.store.expect(&Ask { method: Method::DELETE, key, ..Ask::default() }).await.map(drop)
    }
}

/// Elements of a name inside of elements of another.
fn elements_within(xml: &str, around: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{around}>"), format!("</{around}>"));
    let inside = xml.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    inside.flat_map(|inside| elements(inside, tag)).collect()
}

/// Takes what is read and keeps its hash alone.
struct Measure {
    hash: digest::Context,
    bytes: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_bucket_is_told_from_a_folder() {
        let of = |text| Address::parse(text).expect("a place").map(|address| (address.bucket, address.prefix));
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
