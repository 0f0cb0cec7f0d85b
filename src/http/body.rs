//! Reads request bodies within bounds: media type, size, the total memory of all bodies, deadline and minimum rate.

use std::time::Duration;

use bytes::{Buf, Bytes};
use encoding_rs::{Encoding, UTF_8};
use futures_util::{Stream, StreamExt};
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_TYPE;

use super::browser::is_browser;
use super::budget::{Budget, Holder, Refused, Reservation};
use super::client::Client;
use super::coding::{self, Broken, announced, is_empty};
use super::problem::{Code, Problem};
use crate::csv::encoding;

/// The media type of a JSON document.
pub const JSON: &str = "application/json";
/// The media type of a merge patch (RFC 7396).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// The media type of a table: a header, and one line per row.
pub const CSV: &str = "text/csv";
/// The media type of one JSON document per line.
pub const NDJSON: &str = "application/x-ndjson";
/// The media type that HTML forms and `curl -d` send.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The hint for a body sent as a form.
const BY_CURL: &str = "curl -d declares every body a form unless -H 'Content-Type: …' is given, and removes line ends \
                       from a file; --data-binary @file keeps them";

/// The hint for a body whose media type is a compressed file.
const GZIPPED: &str = "declare the compression with Content-Encoding: gzip in addition";
/// Prefixes of the media types of workbooks, and of archives, which some systems assign to workbooks.
const WORKBOOKS: [&str; 5] = [
    "application/vnd.openxmlformats-officedocument.spreadsheetml",
    "application/vnd.ms-excel",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/zip",
    "application/x-zip",
];
/// The hint for a workbook.
const WORKBOOK: &str = "save a workbook's sheet as CSV, and send the files of an archive unpacked";

/// The limits of a body.
#[derive(Clone)]
pub struct BodyLimits {
    /// Maximum number of bytes.
    pub bytes: usize,
    /// Maximum time from the first wait to the last byte.
    pub timeout: Duration,
    /// Minimum rate in bytes per second, over each window of ten seconds.
    pub min_rate: usize,
    /// The memory budget of all bodies.
    pub memory: Budget,
}

/// Window over which a sender's rate is measured: nginx's default timeout for a silent client.
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a body that are not taken from the budget. Any single passenger or step fits, so those are received while large
/// bodies are refused; the number of connections bounds their sum.
pub const SMALL: usize = 16 * 1024;

/// Reads a whole JSON body.
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

/// Reads a whole body and returns which of the accepted media types it has.
///
/// # Errors
/// 415 for another media type, 413 over the limit, 408 if it takes too long, 400 if the client aborts, 429 and 503 if there is
/// no memory for it.
pub async fn read<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, Broken>>,
    limits: &BodyLimits,
    taken: &'static [&'static str],
) -> Result<(&'static str, Bytes), Problem> {
    let media_type = media_type(headers, taken)?;
    let mut whole = BodyBuffer::begin(headers, limits, limits.bytes)?;
    let mut pace = Pace::begin(limits);
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = pace.next(&mut body).await? {
        whole.push(chunk)?;
    }
    Ok((media_type, whole.into_bytes()))
}

/// A body in memory. Its capacity is taken from the budget before it is filled.
pub struct BodyBuffer {
    bytes: Vec<u8>,
    /// The budget of a body that is not small.
    held: Option<Reservation>,
    client: Client,
    limits: BodyLimits,
}

impl BodyBuffer {
    /// An empty body, with capacity for the announced length, up to `most`.
    ///
    /// # Errors
    /// 413, 429 or 503, before anything is read.
    pub fn begin(headers: &HeaderMap, limits: &BodyLimits, most: usize) -> Result<Self, Problem> {
        let announced = announced(headers).unwrap_or(0);
        if announced > limits.bytes as u64 {
            return Err(limits.too_large());
        }
        let mut buffer = Self { bytes: Vec::new(), held: None, client: Client::of(headers), limits: limits.clone() };
        buffer.reserve(most.min(usize::try_from(announced).unwrap_or(usize::MAX)))?;
        Ok(buffer)
    }

    /// Appends received bytes.
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

    /// Reserves capacity for this many bytes in total.
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

    /// The bytes received so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the received bytes; the buffer is returned with [`BodyBuffer::refill`].
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Reuses the buffer.
    pub fn refill(&mut self, emptied: Vec<u8>) {
        self.bytes = emptied;
    }

    /// Converts the body to shared bytes, whose memory stays in the budget until the last copy is dropped.
    pub fn into_bytes(self) -> Bytes {
        if self.held.is_some() { Bytes::from_owner(self) } else { self.bytes.into() }
    }
}

impl AsRef<[u8]> for BodyBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Waits for the chunks of a body, up to its deadline and while the sender keeps the minimum rate.
pub struct Pace<'a> {
    limits: &'a BodyLimits,
    deadline: Instant,
    /// End of the current window.
    window_end: Instant,
    /// Bytes received in the current window.
    received: usize,
}

impl<'a> Pace<'a> {
    /// Starts the deadline and the first window.
    pub fn begin(limits: &'a BodyLimits) -> Self {
        let now = Instant::now();
        Self { limits, deadline: now + limits.timeout, window_end: now + WINDOW, received: 0 }
    }

    /// The time by which the whole body must have arrived.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// 408 if the deadline has passed or the rate is too low, 400 if the client aborts.
    pub async fn next<B: Buf>(
        &mut self,
        body: &mut (impl Stream<Item = Result<B, Broken>> + Unpin),
    ) -> Result<Option<B>, Problem> {
        loop {
            let until = self.deadline.min(self.window_end);
            match timeout_at(until, body.next()).await {
                Ok(None) => return Ok(None),
                Ok(Some(chunk)) => {
                    let chunk = chunk.map_err(Broken::problem)?;
                    self.received += chunk.remaining();
                    if self.received > SMALL {
                        // Decompressed bytes are always ready; without this yield they would starve other tasks.
                        coop::consume_budget().await;
                    }
                    return Ok(Some(chunk));
                }
                Err(_) if until == self.deadline => return Err(self.limits.too_slow()),
                Err(_) if self.received < self.limits.min_rate * WINDOW.as_secs() as usize => {
                    return Err(self.limits.below_rate());
                }
                Err(_) => (self.window_end, self.received) = (until + WINDOW, 0),
            }
        }
    }
}

impl BodyLimits {
    /// The body exceeds the size limit.
    pub fn too_large(&self) -> Problem {
        Problem::new(Code::BodyTooLarge, format!("the body must have at most {} bytes; send a smaller one", self.bytes))
    }

    /// The body arrives below the minimum rate.
    fn below_rate(&self) -> Problem {
        Problem::new(
            Code::RequestTimeout,
            format!(
                "the body must arrive at {} bytes per second or more, and was below that for {} s; send it again \
                 without pauses",
                self.min_rate,
                WINDOW.as_secs()
            ),
        )
    }

    /// The deadline has passed.
    fn too_slow(&self) -> Problem {
        Problem::new(
            Code::RequestTimeout,
            format!("the body must arrive within {} ms; send the request again", self.timeout.as_millis()),
        )
    }
}

/// The body's media type. A missing one counts as the first of the accepted types, except in requests from browsers, because
/// any page can send arbitrary bytes without a type to any site.
///
/// # Errors
/// 415 if it is not one of the accepted types, or has a content coding that could not be decoded.
pub fn media_type(headers: &HeaderMap, taken: &'static [&'static str]) -> Result<&'static str, Problem> {
    coding::check(headers)?;
    if let [first, others @ ..] = &headers.get_all(CONTENT_TYPE).iter().collect::<Vec<_>>()[..]
        && others.iter().any(|other| other != first)
    {
        return Err(Problem::new(Code::UnsupportedMediaType, "duplicate Content-Type; send it once"));
    }
    let is_untyped = headers.get(CONTENT_TYPE).is_none() && is_browser(headers) && !is_empty(headers);
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let given = if is_untyped { Some("") } else { given };
    let essence = given.map(|value| canonical(value.split(';').next().unwrap_or_default().trim()));
    let fits = |media_type: &&&str| essence.is_none_or(|essence| essence.eq_ignore_ascii_case(media_type));
    let found = taken.iter().find(fits).copied();
    if found.is_some_and(|found| found != CSV) && charset(headers)?.is_some_and(|encoding| encoding != UTF_8) {
        let detail = "JSON and forms must be UTF-8 (RFC 8259, section 8.1); encode the body as UTF-8 and omit charset";
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

/// The media type of which this one is another name: unregistered ones that programs send, and tab-separated values, whose
/// separator the header line shows.
fn canonical(essence: &str) -> &str {
    const OTHERS: [(&str, &str); 11] = [
        ("application/csv", CSV),
        ("application/x-csv", CSV),
        ("text/x-csv", CSV),
        ("text/comma-separated-values", CSV),
        ("text/tab-separated-values", CSV),
        ("text/tsv", CSV),
        ("application/ndjson", NDJSON),
        ("application/jsonl", NDJSON),
        ("application/x-jsonlines", NDJSON),
        ("application/jsonlines", NDJSON),
        ("text/json", JSON),
    ];
    OTHERS.iter().find(|(other, _)| essence.eq_ignore_ascii_case(other)).map_or(essence, |(_, known)| known)
}

/// The encoding that the `charset` of `Content-Type` specifies.
///
/// # Errors
/// 415 if it is unknown.
pub fn charset(headers: &HeaderMap) -> Result<Option<&'static Encoding>, Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parameters = given.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut labels = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let Some((_, label)) = labels.next() else { return Ok(None) };
    if labels.any(|(_, other)| !other.trim().eq_ignore_ascii_case(label.trim())) {
        let detail = "Content-Type has more than one charset; send one";
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    let known = encoding::named(label.trim().trim_matches(['"', '\'']));
    known.map(Some).map_err(|detail| Problem::new(Code::UnsupportedMediaType, format!("charset {detail}")))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// The result for a sender at this many bytes per second, in ten chunks per second.
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
    async fn a_sender_below_the_minimum_rate_or_past_the_deadline_is_refused() {
        let minute = Duration::from_secs(60);
        let begun = Instant::now();
        assert_eq!(sent_at(1100, minute).await.expect("quick enough").len(), 33_000);
        assert!(begun.elapsed() > 3 * WINDOW, "more than one window passed");
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
        let mut body = BodyBuffer::begin(&HeaderMap::new(), &limits, limits.bytes).expect("nothing is announced");
        body.push(&[0; SMALL][..]).expect("small");
        memory.take(holder, 60_000).expect("a small body holds nothing");
        body.push(&[0; 20_000][..]).expect("there is room");
        assert!(memory.take(holder, 30_000).is_err());
        let bytes = body.into_bytes();
        let copy = bytes.clone();
        drop(bytes);
        assert!(memory.take(holder, 30_000).is_err(), "a copy of it is left");
        drop(copy);
        memory.take(holder, 60_000).expect("it was dropped");
    }
}
