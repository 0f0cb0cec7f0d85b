//! Files of WAL between `pg_receivewal` and a bucket, in a temporary directory.
//!
//! Invariant: a file is removed after it was stored in the bucket and read back. Whatever is lost here is received again,
//! because the server keeps it until then ([`super::archive`]).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::bucket::Bucket;
use super::disk::{self, name_of, unreadable, unwritable};
use super::folder::{WAL, is_segment, segment_position};
use super::scratch::Scratch;
use super::seal::{Key, SUFFIX, Writer};
use super::segments::{self, PARTIAL, Received};

/// Maximum number of pieces of a segment in the bucket before one piece replaces them.
const PIECES: usize = 64;

/// The directory, and which of its files are in the bucket.
pub struct Spool<'a> {
    bucket: &'a Bucket,
    key: Option<&'a Key>,
    timeline: String,
    directory: Scratch,
    /// The last complete segment that was stored.
    pub last: Option<String>,
    /// The segment of which this run has stored pieces, and the offset up to which they reach.
    stored: (String, u64),
    /// The names of all pieces in the bucket.
    pieces: Vec<String>,
}

impl<'a> Spool<'a> {
    /// Creates an empty one; `names` are the files of WAL in the bucket.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn new(bucket: &'a Bucket, key: Option<&'a Key>, timeline: &str, names: &[String]) -> anyhow::Result<Self> {
        Ok(Self {
            bucket,
            key,
            timeline: timeline.to_owned(),
            directory: Scratch::within(&std::env::temp_dir(), 0o700)?,
            last: None,
            stored: (String::new(), 0),
            pieces: names.iter().filter(|name| is_segment(name) && name.contains(PARTIAL)).cloned().collect(),
        })
    }

    /// Where `pg_receivewal` writes.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the next `pg_receivewal` begin with this segment: it continues after the newest file in its directory, or at the
    /// beginning of an incomplete segment.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn begin_at(&self, segment: &str) -> anyhow::Result<()> {
        for path in disk::entries(self.path())? {
            fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
        }
        let part = self.path().join(format!("{segment}{PARTIAL}"));
        File::create(&part).map(drop).map_err(|error| unwritable(&part, error))
    }

    /// Stores every complete file, and removes it here.
    ///
    /// # Errors
    /// When the bucket cannot be written; the remaining files stay.
    pub async fn send_whole(&mut self) -> anyhow::Result<()> {
        for name in whole(self.path())? {
            let path = self.path().join(&name);
            self.store(&path, 0..u64::MAX, &format!("{name}{}", self.suffix())).await?;
            fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
            if is_segment(&name) {
                self.remove_pieces(|piece| segment_position(piece) <= segment_position(&name)).await;
                self.last = Some(name);
            }
        }
        Ok(())
    }

    /// Stores the incomplete segment up to an offset; false when it was completed meanwhile.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn send_part(&mut self, segment: &str, end: u64) -> anyhow::Result<bool> {
        let is_it = |path: &Path| {
            let name = name_of(path);
            name.ends_with(PARTIAL) && is_segment(&name) && segment_position(&name) == segment_position(segment)
        };
        // If there is one of two timelines, that of the later one.
        let Some(path) = disk::entries(self.path())?.into_iter().rfind(|path| is_it(path)) else {
            return Ok(end == 0);
        };
        let segment = name_of(&path)[..24].to_owned();
        let count = self.pieces.iter().filter(|piece| piece.starts_with(&segment)).count();
        let begin = if self.stored.0 == segment && count < PIECES { self.stored.1 } else { 0 };
        if begin >= end {
            return Ok(true);
        }
        let name = format!("{}{}", segments::piece(&segment, begin), self.suffix());
        if !self.store(&path, begin..end, &name).await? {
            return Ok(false);
        }
        self.stored = (segment.clone(), end);
        if begin == 0 {
            self.remove_pieces(|piece| piece.starts_with(&segment) && piece != name).await;
        }
        if !self.pieces.contains(&name) {
            self.pieces.push(name);
        }
        Ok(true)
    }

    /// Stores the instant up to which everything is in the bucket.
    ///
    /// # Errors
    /// When the bucket cannot be written.
    pub async fn send_received(&self, received: &Received) -> anyhow::Result<()> {
        self.bucket.store_received(&self.timeline, received).await
    }

    fn suffix(&self) -> &'static str {
        if self.key.is_some() { SUFFIX } else { "" }
    }

    /// Stores bytes of a file, encrypted if there is a key; false when the file was renamed.
    async fn store(&self, from: &Path, range: Range<u64>, name: &str) -> anyhow::Result<bool> {
        let mut file = match File::open(from) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|error| unreadable(from, error))?,
        };
        file.seek(SeekFrom::Start(range.start)).map_err(|error| unreadable(from, error))?;
        let outgoing = self.path().join("outgoing");
        let _ = fs::remove_file(&outgoing); // left by a failed attempt
        let named = format!("{WAL}/{}/{name}", self.timeline);
        let written = Writer::create(&outgoing, &named, self.key).and_then(|mut writer| {
            io::copy(&mut file.take(range.end - range.start), &mut writer)?;
            writer.finish()
        });
        let written = written.map_err(|error| unwritable(&outgoing, error))?;
        self.bucket.store_wal(&self.timeline, name, &outgoing, &written).await?;
        let _ = fs::remove_file(&outgoing); // the next file replaces it
        Ok(true)
    }

    /// Removes pieces that a complete segment or another piece contains. They are harmless, so a failure is ignored: the access
    /// key may lack the right to delete.
    async fn remove_pieces(&mut self, is_superfluous: impl Fn(&str) -> bool) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pieces).into_iter().partition(|piece| is_superfluous(piece));
        self.pieces = kept;
        for piece in gone {
            if let Err(error) = self.bucket.remove_wal(&self.timeline, &piece).await {
                tracing::debug!(
                    object = piece,
                    error = format!("{error:#}"),
                    "cannot remove a chunk of WAL that is no longer needed from the bucket"
                );
            }
        }
    }
}

/// Complete files in the order of their names.
fn whole(directory: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = disk::entries(directory)?.iter().map(|path| name_of(path)).collect();
    names.retain(|name| (is_segment(name) && name.len() == 24) || name.ends_with(".history"));
    Ok(names)
}

/// The number of complete segments in the directory of a spool.
///
/// # Errors
/// When it cannot be read.
pub fn waiting(directory: &Path) -> anyhow::Result<usize> {
    Ok(whole(directory)?.iter().filter(|name| is_segment(name)).count())
}
