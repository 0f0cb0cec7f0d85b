//! Reading a request's body: its media type, its size, the memory of all bodies together, and the time and rate at which
//! it arrives are all bounded.

use std::time::Duration;

use bytes::{Buf, Bytes};
use encoding_rs::{Encoding, UTF_8};
use futures_util::{Stream, StreamExt};
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_TYPE;

use super::browser::is_browser;
use super::budget::{Budget, Held, Holder, Refused};
use super::client::Client;
use super::coding::{self, Broken, announced, is_empty};
use super::problem::{Code, Problem};
use crate::csv::encoding;

/// A document.
pub const JSON: &str = "application/json";
/// Some members of a document (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// A table: a header, and one line per row.
pub const CSV: &str = "text/csv";
/// One JSON document per line.
pub const NDJSON: &str = "application/x-ndjson";
/// What an HTML form sends, and `curl -d`.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// What is the matter with a body that says to be a form.
const BY_CURL: &str = "curl -d calls every body a form unless -H 'Content-Type: …' says otherwise, and takes the ends of lines \
                       out of a file, which --data-binary @file does not";

/// What is the matter with a body whose type says that it is compressed.
const GZIPPED: &str = "that it is compressed is said by Content-Encoding: gzip beside it";
/// How the types of workbooks and of archives begin, which some systems give workbooks.
const WORKBOOKS: [&str; 5] = [
    "application/vnd.openxmlformats-officedocument.spreadsheetml",
    "application/vnd.ms-excel",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/zip",
    "application/x-zip",
];
/// What is the matter with those.
const WORKBOOK: &str = "of a workbook save the sheet as CSV, of an archive send what is in it";

/// The bounds of a body.
#[derive(Clone)]
pub struct BodyLimits {
    /// Most bytes taken.
    pub bytes: usize,
    /// Longest time from the first wait to the last byte.
    pub timeout: Duration,
    /// Fewest bytes a second, over each window of ten seconds.
    pub min_rate: usize,
    /// What all bodies together may hold.
    pub memory: Budget,
}

/// Time over which a sender's rate is judged: as long as nginx waits for a silent one by default.
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a body that are not taken from the budget: any single passenger or step fits, so those are received while
/// large bodies are refused, and the number of connections bounds their sum.
pub const SMALL: usize = 16 * 1024;

/// Reads a JSON body whole.
///
/// # Errors
/// As [`read`].
pub async fn read_json<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, Broken>>,
    limits: &BodyLimits,
) -> Result<Bytes, Problem> {
    read(headers, body, limits, &[JSON]).await.map(|(_, bytes)| bytes)
}

/// Reads a body whole and says which of the media types taken it is of.
///
/// # Errors
/// 415 for another media type, 413 over the limit, 408 when it takes too long, 400 when the client breaks off, 429 and 503
/// when there is no memory for it.
pub async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, Broken>>,
    limits: &BodyLimits,
    taken: &'static [&'static str],
) -> Result<(&'static str, Bytes), Problem> {
    let media_type = media_type(headers, taken)?;
    let mut whole = Growing::begin(headers, limits, limits.bytes)?;
    let mut pace = Pace::begin(limits);
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = pace.next(&mut body).await? {
        whole.push(chunk)?;
    }
    Ok((media_type, whole.into_bytes()))
}

/// A body in memory, which is taken from the budget before it is filled.
pub struct Growing {
    bytes: Vec<u8>,
    /// What is not small has its capacity in the budget.
    held: Option<Held>,
    client: Client,
    limits: BodyLimits,
}

impl Growing {
    /// An empty one, with room for what is announced, up to `most`.
    ///
    /// # Errors
    /// 413, 429 or 503, before anything is read.
    pub fn begin(headers: &HeaderMap, limits: &BodyLimits, most: usize) -> Result<Self, Problem> {
        let announced = announced(headers).unwrap_or(0);
        if announced > limits.bytes as u64 {
            return Err(limits.too_large());
        }
        let mut growing = Self { bytes: Vec::new(), held: None, client: Client::of(headers), limits: limits.clone() };
        growing.reserve(most.min(usize::try_from(announced).unwrap_or(usize::MAX)))?;
        Ok(growing)
    }

    /// Appends what has arrived.
    ///
    /// # Errors
    /// 413, 429 or 503.
    pub fn push(&mut self, mut chunk: impl Buf) -> Result<(), Problem> {
        let length = self.bytes.len() + chunk.remaining();
        if length > self.limits.bytes {
            return Err(self.limits.too_large());
        }
        if length > self.bytes.capacity() {
            self.reserve(length.max(self.bytes.capacity() * 2).min(self.limits.bytes))?;
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            self.bytes.extend_from_slice(part);
            let length = part.len();
            chunk.advance(length);
        }
        Ok(())
    }

    /// Makes room for so many bytes in all.
    fn reserve(&mut self, capacity: usize) -> Result<(), Problem> {
        let refused = |refused: Refused| refused.problem("memory for bodies");
        match &mut self.held {
            _ if capacity <= SMALL => {}
            Some(held) => held.grow(capacity - held.bytes()).map_err(refused)?,
            None => {
                let holder = Holder::Client(self.client);
                self.held = Some(self.limits.memory.take(holder, capacity).map_err(refused)?);
            }
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// What has arrived.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes out what has arrived, to be given back emptied by [`Growing::refill`].
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Goes on in the same memory.
    pub fn refill(&mut self, emptied: Vec<u8>) {
        self.bytes = emptied;
    }

    /// The same as shared bytes, which are held as long as anybody has them.
    pub fn into_bytes(self) -> Bytes {
        if self.held.is_some() { Bytes::from_owner(self) } else { self.bytes.into() }
    }
}

impl AsRef<[u8]> for Growing {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Waits for the chunks of a body: for all of them no longer than its deadline, and for no sender below the lowest rate.
pub struct Pace<'a> {
    limits: &'a BodyLimits,
    deadline: Instant,
    /// When the window ends.
    judged: Instant,
    /// Bytes within the window.
    received: usize,
}

impl<'a> Pace<'a> {
    /// Begins to count.
    pub fn begin(limits: &'a BodyLimits) -> Self {
        let now = Instant::now();
        Self { limits, deadline: now + limits.timeout, judged: now + WINDOW, received: 0 }
    }

    /// When all of the body must be there.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// 408 when the time is up or too little has arrived, 400 when the client breaks off.
    pub async fn next<B: Buf>(
        &mut self,
        body: &mut (impl Stream<Item = Result<B, Broken>> + Unpin),
    ) -> Result<Option<B>, Problem> {
        loop {
            let until = self.deadline.min(self.judged);
            match timeout_at(until, body.next()).await {
                Ok(None) => return Ok(None),
                Ok(Some(chunk)) => {
                    let chunk = chunk.map_err(Broken::problem)?;
                    self.received += chunk.remaining();
                    if self.received > SMALL {
                        // Decompressed bytes are always there, and others want the thread, too.
                        coop::consume_budget().await;
                    }
                    return Ok(Some(chunk));
                }
                Err(_) if until == self.deadline => return Err(self.limits.too_slow()),
                Err(_) if self.received < self.limits.min_rate * WINDOW.as_secs() as usize => {
                    return Err(self.limits.below_rate());
                }
                Err(_) => (self.judged, self.received) = (until + WINDOW, 0),
            }
        }
    }
}

impl BodyLimits {
    /// There are more bytes than are taken.
    pub fn too_large(&self) -> Problem {
        Problem::new(Code::BodyTooLarge, format!("the body may hold at most {} bytes; send a smaller one", self.bytes))
    }

    /// Less arrives than the lowest rate.
    fn below_rate(&self) -> Problem {
        Problem::new(
            Code::RequestTimeout,
            format!(
                "the body must arrive at {} bytes a second or more, and {} s were below that; send it again without pauses",
                self.min_rate,
                WINDOW.as_secs()
            ),
        )
    }

    /// The time is up.
    fn too_slow(&self) -> Problem {
        Problem::new(
            Code::RequestTimeout,
            format!("the body must arrive within {} ms; send the request again", self.timeout.as_millis()),
        )
    }
}

/// The body's media type; a missing one counts as the first of those taken, unless a browser sent the body: its pages may
/// send any bytes without a type anywhere.
///
/// # Errors
/// 415 when it is none of them, or has a coding that could not be undone.
pub fn media_type(headers: &HeaderMap, taken: &'static [&'static str]) -> Result<&'static str, Problem> {
    coding::check(headers)?;
    if let [first, others @ ..] = &headers.get_all(CONTENT_TYPE).iter().collect::<Vec<_>>()[..]
        && others.iter().any(|other| other != first)
    {
        return Err(Problem::new(Code::UnsupportedMediaType, "Content-Type is given more than once; send one"));
    }
    let is_untyped = headers.get(CONTENT_TYPE).is_none() && is_browser(headers) && !is_empty(headers);
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let given = if is_untyped { Some("") } else { given };
    let essence = given.map(|value| value.split(';').next().unwrap_or_default().trim());
    let fits = |media_type: &&&str| essence.is_none_or(|essence| essence.eq_ignore_ascii_case(media_type));
    let found = taken.iter().find(fits).copied();
    if found.is_some_and(|found| found != CSV) && charset(headers)?.is_some_and(|encoding| encoding != UTF_8) {
        let detail = "JSON and forms are UTF-8 (RFC 8259, section 8.1); encode the body so, and leave charset out";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    found.ok_or_else(|| {
        let problem = Problem::new(
            Code::UnsupportedMediaType,
            format!("send the body with the header Content-Type: {}", taken.join(" or ")),
        );
        match essence.map(str::to_ascii_lowercase).as_deref() {
            Some(FORM) => problem.with_hint(BY_CURL),
            Some("application/gzip" | "application/x-gzip") => problem.with_hint(GZIPPED),
            Some(other) if WORKBOOKS.iter().any(|begin| other.starts_with(begin)) => problem.with_hint(WORKBOOK),
            _ => problem,
        }
    })
}

/// The encoding that `Content-Type` names.
///
/// # Errors
/// 415 for one that is not known.
pub fn charset(headers: &HeaderMap) -> Result<Option<&'static Encoding>, Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parameters = given.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut labels = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let Some((_, label)) = labels.next() else { return Ok(None) };
    if labels.any(|(_, other)| !other.trim().eq_ignore_ascii_case(label.trim())) {
        let detail = "Content-Type names more than one charset; name one";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let known = encoding::named(label.trim().trim_matches('"'));
    known.map(Some).map_err(|detail| Problem::new(Code::UnsupportedMediaType, format!("charset {detail}")))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// What becomes of a sender of so many bytes a second, a tenth of them at a time.
    async fn sent_at(rate: usize, timeout: Duration) -> Result<Bytes, Problem> {
        let memory = Budget::new("test", usize::MAX, usize::MAX);
        let limits = BodyLimits { bytes: usize::MAX, timeout, min_rate: 1000, memory };
        let chunks = stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_millis(100)).await; // on a paused clock
            (sent < 300).then(|| (Ok(Bytes::from(vec![b' '; rate / 10])), sent + 1))
        });
        read(&HeaderMap::new(), chunks, &limits, &[JSON]).await.map(|(_, body)| body)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_is_given_up_below_the_lowest_rate_and_at_the_deadline_however_small_its_chunks() {
        let minute = Duration::from_secs(60);
        let begun = Instant::now();
        assert_eq!(sent_at(1100, minute).await.expect("quick enough").len(), 33_000);
        assert!(begun.elapsed() > 3 * WINDOW, "it was judged more than once");
        let begun = Instant::now();
        assert!(sent_at(900, minute).await.expect_err("too slow").is(Code::RequestTimeout));
        assert!(begun.elapsed() < 2 * WINDOW);
        let begun = Instant::now();
        assert!(sent_at(10_000, Duration::from_secs(5)).await.expect_err("late").is(Code::RequestTimeout));
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[test]
    fn a_body_holds_its_capacity_until_it_is_dropped() {
        let memory = Budget::new("test", 100_000, 60_000);
        let limits = BodyLimits { bytes: 80_000, timeout: WINDOW, min_rate: 0, memory: memory.clone() };
        let holder = Holder::Client(Client::of(&HeaderMap::new()));
        let mut body = Growing::begin(&HeaderMap::new(), &limits, limits.bytes).expect("nothing is announced");
        body.push(&[0; SMALL][..]).expect("small");
        memory.take(holder, 60_000).expect("a small body holds nothing");
        body.push(&[0; 20_000][..]).expect("there is room");
        assert!(memory.take(holder, 30_000).is_err());
        let bytes = body.into_bytes();
        let copy = bytes.clone();
        drop(bytes);
        assert!(memory.take(holder, 30_000).is_err(), "a copy of it is left");
        drop(copy);
        memory.take(holder, 60_000).expect("it has gone");
    }
}
