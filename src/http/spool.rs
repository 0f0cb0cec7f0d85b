//! Spools a body while it arrives, in memory up to a size and in a file beyond it.
//!
//! No resource is held while waiting for the sender: a reader may start when the body is complete, or follow it and stop when
//! the sender falls behind. The file is unlinked when it is created, so that nothing is left however the process ends.

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use warp::http::HeaderMap;

use super::body::{BodyBuffer, BodyLimits, Pace};
use super::budget::{Budget, Holder, Refused, Reservation};
use super::client::Client;
use super::coding::{Broken, announced};
use super::problem::Problem;

/// Longer bodies are written to a file. Most bodies are shorter, and files cost more than memory.
const IN_MEMORY: usize = 1024 * 1024;
/// Bytes per file access: each access runs on another thread.
const BLOCK: usize = 256 * 1024;
/// Bytes per read, so that other tasks can run on this thread in between.
const SLICE: usize = 64 * 1024;
/// A sender that delivers the first [`IN_MEMORY`] bytes within this time is likely to stay ahead of PostgreSQL, which takes
/// about three times as long.
const QUICK: Duration = Duration::from_millis(100);

/// The directory for long bodies.
pub struct Disk {
    folder: PathBuf,
    budget: Budget,
}

/// A body that may still be arriving.
#[derive(Default)]
pub struct Spool {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Default)]
struct State {
    content: Content,
    has_ended: bool,
    is_quick: bool,
}

#[derive(Clone, Default)]
enum Content {
    /// Nothing is readable yet.
    #[default]
    Nothing,
    /// The complete, short body.
    Memory(Bytes),
    /// The file of a long body, and the number of bytes written to it.
    File(Arc<File>, u64),
}

/// The result of a read.
pub enum Read {
    /// The next bytes.
    Bytes(Bytes),
    /// The end of the body.
    End,
    /// The sender is too slow.
    Late,
}

impl Disk {
    /// Stores bodies in a directory, within a budget.
    pub fn new(folder: PathBuf, budget: Budget) -> Self {
        Self { folder, budget }
    }

    fn take(&self, client: Client, bytes: usize) -> Result<Reservation, Problem> {
        self.budget.take(Holder::Client(client), bytes).map_err(disk_full)
    }

    async fn file(&self) -> Result<File, Problem> {
        let folder = self.folder.clone();
        blocking(move || unlinked_file(&folder)).await
    }
}

impl Spool {
    /// A complete body.
    pub fn whole(body: Bytes) -> Self {
        let state = State { content: Content::Memory(body), has_ended: true, is_quick: true };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Receives a body; `each` is called with every chunk. The disk space stays reserved until the returned reservation is
    /// dropped.
    ///
    /// # Errors
    /// As [`super::body::read`], and 429 or 503 if there is no disk space for it.
    pub async fn receive(
        &self,
        headers: &HeaderMap,
        body: &mut (impl Stream<Item = Result<Bytes, Broken>> + Unpin),
        limits: &BodyLimits,
        disk: &Disk,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Option<Reservation>, Problem> {
        let client = Client::of(headers);
        let mut buffer = BodyBuffer::begin(headers, limits, IN_MEMORY)?;
        let announced = announced(headers).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut room = (announced > IN_MEMORY).then(|| disk.take(client, announced)).transpose()?;
        let mut pace = Pace::begin(limits);
        let begun = Instant::now();
        let mut received = 0;
        let mut file = None;
        while let Some(chunk) = pace.next(body).await? {
            each(&chunk);
            received += chunk.len();
            if received > limits.bytes {
                return Err(limits.too_large());
            }
            if buffer.as_slice().len() + chunk.len() > if file.is_some() { BLOCK } else { IN_MEMORY } {
                if file.is_none() {
                    file = Some(Arc::new(disk.file().await?));
                    self.change(|state| state.is_quick = begun.elapsed() < QUICK);
                }
                match &mut room {
                    Some(room) if room.bytes() >= received => {}
                    Some(room) => room.grow(IN_MEMORY).map_err(disk_full)?,
                    None => room = Some(disk.take(client, received + IN_MEMORY)?),
                }
                self.write(file.as_ref(), &mut buffer).await?;
            }
            buffer.push(chunk)?;
        }
        if file.is_some() {
            self.write(file.as_ref(), &mut buffer).await?;
            self.change(|state| state.has_ended = true);
        } else {
            self.change(|state| (state.content, state.has_ended) = (Content::Memory(buffer.into_bytes()), true));
        }
        Ok(room)
    }

    /// Appends the buffered bytes to the file, where readers can see them.
    async fn write(&self, file: Option<&Arc<File>>, buffer: &mut BodyBuffer) -> Result<(), Problem> {
        let Some(file) = file.cloned() else { return Ok(()) };
        let at = self.lock().readable();
        let block = buffer.take();
        let (written, mut block) = blocking(move || {
            file.write_all_at(&block, at)?;
            Ok((Content::File(file, at + block.len() as u64), block))
        })
        .await?;
        block.clear();
        buffer.refill(block);
        self.change(|state| state.content = written);
        Ok(())
    }

    /// Returns when the body is complete, or when it arrives so quickly that it may be read meanwhile.
    pub async fn readable(&self) {
        self.until(|state| state.has_ended || state.is_quick).await;
    }

    /// Returns when the body is complete.
    pub async fn ended(&self) {
        self.until(|state| state.has_ended).await;
    }

    /// A reader that starts at the beginning.
    pub fn reader(&self) -> Reader<'_> {
        Reader { spool: self, at: 0, block: Bytes::new() }
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the check, so that no change after it is missed.
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    fn snapshot(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a body while it arrives.
pub struct Reader<'a> {
    spool: &'a Spool,
    /// The offset of the next block.
    at: u64,
    /// Bytes read but not yet returned.
    block: Bytes,
}

impl Reader<'_> {
    /// Returns the next bytes, and waits for the sender at most for the remaining patience.
    ///
    /// # Errors
    /// 503 if the file cannot be read.
    pub async fn next(&mut self, patience: &mut Duration) -> Result<Read, Problem> {
        while self.block.is_empty() {
            let state = self.spool.snapshot();
            let there = state.readable();
            if self.at < there {
                let (at, length) = (self.at, (there - self.at).min(BLOCK as u64));
                self.block = match state.content {
                    Content::File(file, _) => blocking(move || block(&file, at, length)).await?,
                    Content::Memory(body) => body,
                    Content::Nothing => Bytes::new(),
                };
                self.at += self.block.len() as u64;
            } else if state.has_ended {
                return Ok(Read::End);
            } else {
                let begun = Instant::now();
                let more = self.spool.until(|state| state.has_ended || state.readable() > there);
                if timeout(*patience, more).await.is_err() {
                    return Ok(Read::Late);
                }
                *patience = patience.saturating_sub(begun.elapsed());
            }
        }
        Ok(Read::Bytes(self.block.split_to(self.block.len().min(SLICE))))
    }
}

impl State {
    /// The number of readable bytes.
    fn readable(&self) -> u64 {
        match &self.content {
            Content::Nothing => 0,
            Content::Memory(body) => body.len() as u64,
            Content::File(_, written) => *written,
        }
    }
}

fn block(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut block = vec![0; usize::try_from(length).unwrap_or(BLOCK)];
    file.read_exact_at(&mut block, at)?;
    Ok(block.into())
}

/// Creates an unlinked file, which is deleted when it is closed and which no other process can open.
fn unlinked_file(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".pycrudapi-{}", Uuid::new_v4().simple()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    remove_file(path)?;
    Ok(file)
}

/// Runs disk access on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Problem> {
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot store a body in SPOOL_DIR");
        Problem::unavailable(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "the disk for large bodies is full; nothing was stored, send the request again or send less at a time"
            }
            _ => "large bodies cannot be stored at the moment; nothing was stored, send less at a time",
        })
    })
}

fn disk_full(refused: Refused) -> Problem {
    refused.problem("disk for large bodies")
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits() -> BodyLimits {
        let memory = Budget::new("test", usize::MAX, usize::MAX);
        BodyLimits { bytes: usize::MAX, timeout: MINUTE, min_rate: 0, memory }
    }

    fn disk(folder: &Path, bytes: usize) -> Disk {
        Disk::new(folder.to_owned(), Budget::new("test", bytes, bytes))
    }

    fn body(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect()
    }

    async fn read_all(mut reader: Reader<'_>) -> Result<Vec<u8>, Problem> {
        let (mut whole, mut patience) = (Vec::new(), MINUTE);
        while let Read::Bytes(bytes) = reader.next(&mut patience).await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    #[tokio::test]
    async fn a_body_is_read_unchanged_while_it_arrives_and_again_later() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let disk = disk(folder.path(), usize::MAX);
        for length in [0, 1, BLOCK, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY + BLOCK + 7] {
            for chunk in [4099, 65_536, IN_MEMORY + 3] {
                let sent = body(length);
                let chunks: Vec<_> = sent.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
                let (spool, mut seen) = (Spool::default(), 0);
                let headers = HeaderMap::new();
                let (limits, mut chunks) = (limits(), stream::iter(chunks));
                let receiving = spool.receive(&headers, &mut chunks, &limits, &disk, |chunk| seen += chunk.len());
                let (received, read) = tokio::join!(receiving, read_all(spool.reader()));
                let held = received.expect("received");
                assert_eq!(held.is_some(), length > IN_MEMORY, "{length} in {chunk}");
                assert!(read.expect("read") == sent, "{length} in {chunk}");
                assert!(read_all(spool.reader()).await.expect("read again") == sent, "{length} in {chunk}");
                assert_eq!(seen, length);
                assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0, "a file has a name");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_stops_when_the_sender_is_too_slow() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (disk, spool, limits, headers) =
            (disk(folder.path(), usize::MAX), Spool::default(), limits(), HeaderMap::new());
        let begun = stream::iter([Ok(Bytes::from(body(IN_MEMORY))), Ok(Bytes::from(body(1)))]);
        let mut chunks = begun.chain(stream::pending());
        let receiving = spool.receive(&headers, &mut chunks, &limits, &disk, |_| ());
        let reading = async {
            spool.readable().await;
            let (mut reader, mut patience) = (spool.reader(), Duration::from_secs(1));
            while matches!(reader.next(&mut patience).await, Ok(Read::Bytes(_))) {}
            reader.next(&mut patience).await
        };
        tokio::select! {
            received = receiving => panic!("received: {}", received.is_ok()),
            read = reading => assert!(matches!(read, Ok(Read::Late))),
        }
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_refused_when_the_disk_budget_is_exhausted() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (disk, spool, limits, headers) =
            (disk(folder.path(), 3 * IN_MEMORY), Spool::default(), limits(), HeaderMap::new());
        let mut endless = stream::repeat_with(|| Ok(Bytes::from(body(100_000))));
        let refused = spool.receive(&headers, &mut endless, &limits, &disk, |_| ()).await;
        assert!(refused.is_err());
    }
}
