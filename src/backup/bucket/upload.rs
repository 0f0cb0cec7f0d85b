//! Uploads: a file in one request or in parts, then read back and compared with what was sent.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};
use warp::http::Method;

use super::Bucket;
use super::store::{Ask, elements};
use crate::backup::disk::{unreadable, unwritable};
use crate::backup::folder::{Folder, Lock};
use crate::backup::record::{Backup, FILE, FILE_MAX_BYTES};
use crate::backup::seal::Written;
use crate::hexadecimal;
use crate::short_file::{self, Bounded};

/// Length of a part; an upload has at most 10,000.
const PART_BYTES: u64 = 16 << 20;
const PARTS: u64 = 9_000;
/// Longest file that is sent in one request: a segment of WAL, which is a little longer than a part when it is encrypted.
const WHOLE_BYTES: u64 = PART_BYTES + PART_BYTES / 2;

/// How far the upload of a file is.
#[derive(Serialize, Deserialize)]
struct Progress {
    path: String,
    upload: String,
    etags: Vec<String>,
}

impl Bucket {
    /// Uploads every backup in the stage, and removes it from there.
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
        // Beside the backup, whose directory has only what its record lists.
        let progress = stage.path().join(format!("{}.upload", backup.id));
        for file in &backup.files {
            let key = self.key(&backup.id, &file.path);
            let written = file.written();
            if !self.has(&key, &written).await? {
                self.store_file(&directory.join(&file.path), &key, &written, &progress).await?;
            }
        }
        let path = directory.join(FILE);
        let record = short_file::read(&path, FILE_MAX_BYTES).map_err(|error| unreadable(&path, error))?;
        self.store_bytes(&self.key(&backup.id, FILE), record).await
    }

    /// Uploads a file, and reads it back; `progress` is the file that says how far a long one is.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not have what was sent.
    pub(super) async fn store_file(
        &self,
        path: &Path,
        key: &str,
        written: &Written,
        progress: &Path,
    ) -> anyhow::Result<()> {
        self.send(path, key, written.bytes, progress).await?;
        if !self.has(key, written).await? {
            bail!("the store does not have {key} as it was sent; try again");
        }
        Ok(())
    }

    /// Uploads a short object, and reads it back.
    ///
    /// # Errors
    /// As [`Self::store_file`].
    pub(super) async fn store_bytes(&self, key: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.put(key, &[], bytes.clone().into()).await?;
        let mut stored = Bounded::new(FILE_MAX_BYTES);
        self.store.read(key, &mut stored).await?;
        if stored.bytes != bytes {
            bail!("the store does not have {key} as it was sent; try again");
        }
        Ok(())
    }

    async fn put(&self, key: &str, query: &[(&str, &str)], body: Bytes) -> anyhow::Result<Option<String>> {
        Ok(self.store.expect(&Ask { method: Method::PUT, key, query, body }).await?.1)
    }

    /// Whether the bucket has this object as it was written, by reading it.
    pub(super) async fn has(&self, key: &str, written: &Written) -> anyhow::Result<bool> {
        let mut measure = Measure { hash: digest::Context::new(&digest::SHA256), bytes: 0 };
        let is_there = self.store.read(key, &mut measure).await?;
        let sha256 = hexadecimal::text(measure.hash.finish().as_ref());
        Ok(is_there && measure.bytes == written.bytes && sha256 == written.sha256)
    }

    /// Uploads a file, in parts if it is long.
    async fn send(&self, path: &Path, key: &str, bytes: u64, progress_path: &Path) -> anyhow::Result<()> {
        let unreadable = || format!("cannot read {}", path.display());
        let mut from = File::open(path).with_context(unreadable)?;
        if bytes <= WHOLE_BYTES {
            let mut body = Vec::new();
            from.read_to_end(&mut body).with_context(unreadable)?;
            return self.put(key, &[], body.into()).await.map(drop);
        }
        let length = PART_BYTES.max(bytes.div_ceil(PARTS));
        let mut progress = self.progress(progress_path, key).await?;
        while length * (progress.etags.len() as u64) < bytes {
            let begin = length * progress.etags.len() as u64;
            from.seek(SeekFrom::Start(begin)).with_context(unreadable)?;
            let mut part = Vec::new();
            (&from).take(length).read_to_end(&mut part).with_context(unreadable)?;
            let number = (progress.etags.len() + 1).to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", progress.upload.as_str())];
            let ask = Ask { method: Method::PUT, key, query: &query, body: part.into() };
            let (_, etag) = match self.store.ask(&ask).await? {
                Ok(answer) => answer,
                Err(refusal) => {
                    // The store may no longer have this upload; the next run begins another.
                    let _ = fs::remove_file(progress_path);
                    return Err(self.store.explained(refusal));
                }
            };
            progress.etags.push(etag.context("the store returned no ETag for a part")?);
            let text = serde_json::to_vec(&progress).context("cannot write how far the upload is")?;
            fs::write(progress_path, text).map_err(|error| unwritable(progress_path, error))?;
        }
        let parts = progress.etags.iter().zip(1..).map(|(etag, number)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
        });
        let body = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
        let query = [("uploadId", progress.upload.as_str())];
        let ask = Ask { method: Method::POST, key, query: &query, body: body.into() };
        let completed = self.store.expect(&ask).await;
        // Whatever is wrong with it, the next run begins another.
        let _ = fs::remove_file(progress_path);
        let (answer, _) = completed?;
        // The status is sent before the parts are put together.
        match elements(&String::from_utf8_lossy(&answer), "Code").first() {
            Some(code) => bail!("the store cannot put {key} together ({code}); try again"),
            None => Ok(()),
        }
    }

    /// The upload of a file that was begun, if the store still has it, or a new one.
    async fn progress(&self, progress_path: &Path, key: &str) -> anyhow::Result<Progress> {
        let known = short_file::read(progress_path, FILE_MAX_BYTES)
            .ok()
            .and_then(|text| serde_json::from_slice::<Progress>(&text).ok());
        if let Some(known) = known.filter(|known| known.path == key) {
            let query = [("uploadId", known.upload.as_str())];
            let asked = self.store.ask(&Ask { key, query: &query, ..Ask::default() }).await?;
            // A store that does not list parts, or not for this key, may have them nevertheless.
            if asked.as_ref().err().is_none_or(|refusal| refusal.code != "NoSuchUpload") {
                tracing::info!(object = key, parts = known.etags.len(), "resuming an upload");
                return Ok(known);
            }
        }
        let begin = Ask { method: Method::POST, key, query: &[("uploads", "")], ..Ask::default() };
        let (body, _) = self.store.expect(&begin).await?;
        let upload = elements(&String::from_utf8_lossy(&body), "UploadId").into_iter().next();
        let upload = upload.context("the store returned no id of an upload")?;
        Ok(Progress { path: key.to_owned(), upload, etags: Vec::new() })
    }
}

/// Hashes and counts what is read.
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
