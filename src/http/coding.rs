//! Decodes the `Content-Encoding` of a request: gzip is decompressed while the body arrives, so that every limit applies to the
//! decompressed bytes and readers of the body never see the coding.
//!
//! Decompressed bytes are delivered in chunks of 16 KiB, and the next chunk is not decompressed before the previous one was
//! taken: a reader that stops at its limit has decompressed at most one chunk more than that limit.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use futures_util::Stream;
use warp::http::HeaderMap;
use warp::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use warp::{Filter, Rejection};

use super::budget::{Budget, Holder, Refused, Reservation};
use super::problem::{Code, Problem};

/// The supported coding.
const GZIP: &str = "gzip";
/// The first bytes of a member: its signature and the compression method.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Maximum bytes per decompressed chunk.
const CHUNK_BYTES: usize = 16 * 1024;
/// Memory of a decoder: deflate's window and tables, and one chunk.
const DECODER: usize = 64 * 1024;
/// Maximum characters of an unknown coding that the problem repeats.
const SHOWN_MAX_CHARS: usize = 40;

/// Why a body ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The client closed the connection, or the connection failed.
    Aborted,
    /// The compressed bytes are not valid gzip.
    Corrupt(&'static str),
    /// No memory is available to decompress them.
    Refused(Refused),
}

impl Broken {
    /// The problem for the client.
    pub fn problem(self) -> Problem {
        match self {
            Self::Aborted => Problem::new(Code::InvalidJson, "the body is incomplete; send the request again"),
            Self::Corrupt(how) => Problem::new(
                Code::InvalidJson,
                format!(
                    "the body cannot be decompressed according to its Content-Encoding: {how}; compress it again, or \
                     send it uncompressed without that header"
                ),
            ),
            Self::Refused(refused) => refused.problem("memory for bodies"),
        }
    }
}

/// Extracts the headers and the body of a request; `memory` is the budget of bodies.
///
/// The headers describe the body as delivered: a decoded coding is removed, and an unsupported one is kept for [`check`].
pub fn headers_and_body(
    memory: &Budget,
) -> impl Filter<Extract = (HeaderMap, impl Stream<Item = Result<Bytes, Broken>>), Error = Rejection>
+ Clone
+ Send
+ Sync
+ 'static {
    let memory = memory.clone();
    warp::header::headers_cloned()
        .and(warp::body::stream())
        .map(move |mut headers: HeaderMap, body| {
            let body =
                if take_coding(&mut headers) { Content::compressed(body, &memory) } else { Content::Plain(body) };
            (headers, body)
        })
        .untuple_one()
}

/// The length that `Content-Length` announces.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns true if the request has no body (RFC 9112, section 6.3).
pub fn is_empty(headers: &HeaderMap) -> bool {
    announced(headers).unwrap_or(0) == 0 && !headers.contains_key(TRANSFER_ENCODING)
}

/// Refuses a body whose coding is not supported.
///
/// # Errors
/// 415, with the supported coding (RFC 9110, section 15.5.16).
pub fn check(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let lines = headers.get_all(CONTENT_ENCODING).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let shown: String = lines.collect::<Vec<_>>().join(", ").chars().take(SHOWN_MAX_CHARS).collect();
    let detail = format!(
        "Content-Encoding {shown:?} is not supported; compress the body with gzip alone, or send it uncompressed \
         without that header"
    );
    Err(Problem::new(Code::UnsupportedMediaType, detail).with_header(ACCEPT_ENCODING, GZIP))
}

/// Returns true if the body is to be decompressed; removes the headers that no longer apply.
fn take_coding(headers: &mut HeaderMap) -> bool {
    if !headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let is_compressed = match codings(headers).as_slice() {
        [] => false,
        _ if is_empty(headers) => false,
        [coding] if ["gzip", "x-gzip"].iter().any(|name| coding.eq_ignore_ascii_case(name)) => true,
        _ => return false,
    };
    headers.remove(CONTENT_ENCODING);
    if is_compressed {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    is_compressed
}

/// The codings in the order in which they were applied, without `identity`.
fn codings(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CONTENT_ENCODING).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let all: Vec<String> =
        lines.flat_map(|line| line.split(',').map(|coding| coding.trim().to_owned()).collect::<Vec<_>>()).collect();
    all.into_iter().filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).collect()
}

/// A body whose coding is removed.
enum Content<S> {
    /// It had no coding.
    Plain(S),
    /// It is decompressed as it arrives.
    Compressed(Box<Compressed<S>>),
}

/// A gzip body: a sequence of members (RFC 1952, section 2.2).
struct Compressed<S> {
    body: S,
    /// Reserved before anything is decompressed.
    held: Result<Reservation, Refused>,
    /// Bytes received but not yet decompressed.
    compressed: Bytes,
    /// The position in the member.
    part: Part,
    inflate: Decompress,
    /// The checksum of the member's data so far.
    crc: Crc,
    /// Whether at least one member is complete.
    has_member: bool,
    has_failed: bool,
}

/// The parts of a member in order.
enum Part {
    /// The ten-byte fixed header, and how many of its bytes were read.
    Fixed([u8; 10], usize),
    /// The remaining flags, and the length of the extra field with the number of bytes read.
    ExtraLength(u8, [u8; 2], usize),
    /// The remaining flags, and the number of bytes to skip.
    Skipped(u8, usize),
    /// A zero-terminated name or comment, which is skipped.
    Text(u8),
    /// The compressed data.
    Data,
    /// Checksum and length, and how many of their bytes were read.
    Trailer([u8; 8], usize),
}

/// Flags of a member's header (RFC 1952, section 2.3.1).
mod flag {
    pub const HEADER_CRC: u8 = 0b10;
    pub const EXTRA: u8 = 0b100;
    pub const NAME: u8 = 0b1000;
    pub const COMMENT: u8 = 0b1_0000;
    pub const RESERVED: u8 = 0b1110_0000;
}

impl<S> Content<S> {
    fn compressed(body: S, memory: &Budget) -> Self {
        Self::Compressed(Box::new(Compressed {
            body,
            // Not charged to the client's share: the smallest shares would have no room left for the body itself.
            held: memory.take(Holder::Several, DECODER),
            compressed: Bytes::new(),
            part: Part::first(),
            inflate: Decompress::new(false),
            crc: Crc::new(),
            has_member: false,
            has_failed: false,
        }))
    }
}

impl Part {
    fn first() -> Self {
        Self::Fixed([0; 10], 0)
    }

    /// The next header part that the remaining flags announce.
    fn announced(flags: u8) -> Self {
        match flags {
            _ if flags & flag::EXTRA != 0 => Self::ExtraLength(flags & !flag::EXTRA, [0; 2], 0),
            _ if flags & flag::NAME != 0 => Self::Text(flags & !flag::NAME),
            _ if flags & flag::COMMENT != 0 => Self::Text(flags & !flag::COMMENT),
            _ if flags & flag::HEADER_CRC != 0 => Self::Skipped(flags & !flag::HEADER_CRC, 2),
            _ => Self::Data,
        }
    }
}

/// Moves received bytes into a buffer; returns true if the buffer is full.
fn filled(place: &mut [u8], there: &mut usize, compressed: &mut Bytes) -> bool {
    let count = compressed.len().min(place.len() - *there);
    compressed.split_to(count).copy_to_slice(&mut place[*there..*there + count]);
    *there += count;
    *there == place.len()
}

impl<S> Compressed<S> {
    /// Decompresses up to one chunk; `None` if more bytes have to arrive first.
    fn decompress(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            match &mut self.part {
                Part::Data => {
                    let mut piece = Vec::with_capacity(CHUNK_BYTES);
                    let before = self.inflate.total_in();
                    let status = self.inflate.decompress_vec(&self.compressed, &mut piece, FlushDecompress::None);
                    let status = status.map_err(|_| Broken::Corrupt("its compressed data are corrupt"))?;
                    self.compressed.advance(usize::try_from(self.inflate.total_in() - before).unwrap_or(usize::MAX));
                    self.crc.update(&piece);
                    if status == Status::StreamEnd {
                        self.part = Part::Trailer([0; 8], 0);
                    }
                    if !piece.is_empty() {
                        return Ok(Some(piece.into()));
                    }
                    // After a full chunk decompression is tried again, even without further input: the window may hold more
                    // output.
                    if status != Status::StreamEnd && self.compressed.is_empty() {
                        return Ok(None);
                    }
                }
                _ if self.compressed.is_empty() => return Ok(None),
                Part::Fixed(bytes, there) => {
                    if filled(bytes, there, &mut self.compressed) {
                        let [0x1f, 0x8b, 8, flags, ..] = *bytes else {
                            return Err(Broken::Corrupt(match self.has_member {
                                false => "it does not begin with a gzip header",
                                true => "other data follow the end of the gzip data",
                            }));
                        };
                        if flags & flag::RESERVED != 0 {
                            return Err(Broken::Corrupt("its header has unknown flags"));
                        }
                        self.part = Part::announced(flags & !1); // flag 1 (FTEXT) has no effect on decoding
                    }
                }
                Part::ExtraLength(flags, length, there) => {
                    if filled(length, there, &mut self.compressed) {
                        self.part = match u16::from_le_bytes(*length) {
                            0 => Part::announced(*flags),
                            length => Part::Skipped(*flags, length.into()),
                        };
                    }
                }
                Part::Skipped(flags, left) => {
                    let count = self.compressed.len().min(*left);
                    self.compressed.advance(count);
                    *left -= count;
                    if *left == 0 {
                        self.part = Part::announced(*flags);
                    }
                }
                Part::Text(flags) => match self.compressed.iter().position(|byte| *byte == 0) {
                    Some(end) => {
                        self.compressed.advance(end + 1);
                        self.part = Part::announced(*flags);
                    }
                    None => self.compressed.clear(),
                },
                Part::Trailer(bytes, there) => {
                    if filled(bytes, there, &mut self.compressed) {
                        let (sum, length) = (self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes());
                        if [sum, length].concat() != bytes.as_slice() {
                            return Err(Broken::Corrupt("its checksum does not match its data"));
                        }
                        self.part = Part::first();
                        self.has_member = true;
                        self.inflate.reset(false);
                        self.crc.reset();
                    }
                }
            }
        }
    }

    /// Checks that the compressed bytes may end at this position.
    fn end(&self) -> Result<(), Broken> {
        match self.part {
            Part::Fixed(_, 0) => Ok(()),
            Part::Fixed(bytes, there) if !self.has_member && !MAGIC.starts_with(&bytes[..there.min(MAGIC.len())]) => {
                Err(Broken::Corrupt("it does not begin with a gzip header"))
            }
            Part::Fixed(..) if self.has_member => Err(Broken::Corrupt("other data follow the end of the gzip data")),
            _ => Err(Broken::Corrupt("the gzip data are incomplete")),
        }
    }
}

impl<S, B> Stream for Content<S>
where
    S: Stream<Item = Result<B, warp::Error>> + Unpin,
    B: Buf,
{
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = |body: &mut S, context: &mut Context<'_>| {
            Pin::new(body).poll_next(context).map(|chunk| {
                chunk.map(|chunk| {
                    chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())).map_err(|_| Broken::Aborted)
                })
            })
        };
        let compressed = match &mut *self {
            Self::Plain(body) => return next(body, context),
            Self::Compressed(compressed) => compressed,
        };
        if compressed.has_failed {
            return Poll::Ready(None);
        }
        let outcome = loop {
            if let Err(refused) = &compressed.held {
                break Err(Broken::Refused(*refused));
            }
            match compressed.decompress() {
                Ok(None) => {}
                Ok(Some(piece)) => break Ok(piece),
                Err(broken) => break Err(broken),
            }
            match ready!(next(&mut compressed.body, context)) {
                Some(Ok(chunk)) => compressed.compressed = chunk,
                Some(Err(broken)) => break Err(broken),
                None => match compressed.end() {
                    Ok(()) => return Poll::Ready(None),
                    Err(broken) => break Err(broken),
                },
            }
        };
        compressed.has_failed = outcome.is_err();
        Poll::Ready(Some(outcome))
    }
}

#[cfg(test)]
mod tests;
