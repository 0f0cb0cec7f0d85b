//! Finds the end of request heads and of chunked bodies: the framing of RFC 9112, sections 2 and 7.1, without interpretation.
//!
//! Lines end as in hyper's parser: a head ends at the first empty line, and LF alone also ends a line. Chunk parsing is
//! stricter than hyper's; where it rejects what hyper accepts, the result is [`Progress::Lost`], and nothing after that is
//! changed.

use bytes::BytesMut;
use memchr::{memchr, memchr_iter};

/// Returns true if a byte of a target must be percent-encoded: bytes that hyper refuses, `#`, after which hyper drops the rest,
/// and non-ASCII bytes, which hyper refuses unless they are UTF-8.
fn needs_encoding(byte: u8) -> bool {
    // Branch-free, so that sixteen bytes are compared at a time.
    !byte.is_ascii() | (byte == b'"') | (byte == b'<') | (byte == b'>') | (byte == b'`') | (byte == b'#')
}

/// The parser state within a head, which arrives in pieces.
#[derive(Default)]
pub struct Head {
    part: Part,
    line: Line,
}

/// The parts of a head in order.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Leading empty lines, which are skipped.
    #[default]
    Blank,
    /// The request line up to its first space.
    Method,
    /// The rest of the request line: target and version.
    Target,
    /// Header lines.
    Fields,
}

/// What the current line contains so far.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Nothing,
    /// Only CR.
    Return,
    Something,
}

/// The result of parsing a piece.
pub struct Parsed {
    /// Number of bytes that belong to the head.
    pub length: usize,
    /// Whether the head ends with them.
    pub is_whole: bool,
    /// The same bytes with the target encoded, if that changes them.
    pub encoded: Option<BytesMut>,
}

impl Head {
    /// Parses the next bytes.
    pub fn parse(&mut self, new: &[u8]) -> Parsed {
        let mut at = 0;
        if self.part == Part::Blank {
            at = new.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(new.len());
            if at < new.len() {
                self.part = Part::Method;
            }
        }
        if self.part == Part::Method
            && let Some(end) = new[at..].iter().position(|byte| matches!(byte, b' ' | b'\n'))
        {
            at += end;
            self.part = Part::Target; // its first byte is the space, or the line end if there is no space
        }
        let mut encoded = None;
        if self.part == Part::Target {
            let end = memchr(b'\n', &new[at..]).map(|end| at + end);
            let target = at..end.unwrap_or(new.len());
            if new[target.clone()].iter().fold(false, |odd, byte| odd | needs_encoding(*byte)) {
                encoded = Some(target);
            }
            match end {
                Some(end) => (self.part, at) = (Part::Fields, end + 1),
                None => at = new.len(),
            }
        }
        let mut is_whole = false;
        if self.part == Part::Fields {
            let fields = &new[at..];
            let mut begin = 0;
            for end in memchr_iter(b'\n', fields) {
                is_whole = self.line.and(&fields[begin..end]) != Line::Something;
                (self.line, begin) = (Line::Nothing, end + 1);
                if is_whole {
                    break;
                }
            }
            self.line = self.line.and(if is_whole { &[] } else { &fields[begin..] });
            at += begin;
        }
        let length = if is_whole { at } else { new.len() };
        let encoded = encoded.map(|target| encode(&new[..length], target));
        Parsed { length, is_whole, encoded }
    }
}

impl Line {
    fn and(self, more: &[u8]) -> Self {
        match (self, more) {
            (_, []) => self,
            (Self::Nothing, b"\r") => Self::Return,
            _ => Self::Something,
        }
    }
}

#[cold]
fn encode(bytes: &[u8], target: std::ops::Range<usize>) -> BytesMut {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = BytesMut::with_capacity(bytes.len() + 2 * target.len());
    encoded.extend_from_slice(&bytes[..target.start]);
    for byte in &bytes[target.clone()] {
        if needs_encoding(*byte) {
            encoded.extend_from_slice(&[b'%', DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]);
        } else {
            encoded.extend_from_slice(&[*byte]);
        }
    }
    encoded.extend_from_slice(&bytes[target.end..]);
    encoded
}

/// The parser state within a chunked body.
#[derive(Default)]
pub struct Chunks {
    part: ChunkPart,
    /// Size of the chunk, then the bytes left of it.
    size: u64,
    digits: u8,
}

/// The parts of a chunked body.
#[derive(Default, Clone, Copy)]
enum ChunkPart {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    /// The start of a line after the last chunk: a trailer field, or the end.
    Last,
    LastEnd,
    Trailer,
    TrailerEnd,
}

/// The result of parsing a piece of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of these bytes belong to the body, and more follow.
    Within,
    /// The body ends after this many bytes.
    End(usize),
    /// The bytes are not as expected.
    Lost,
}

/// Limits the digits so that the size fits a u64.
const DIGITS_MAX: u8 = 15;

impl Chunks {
    /// Parses the next bytes.
    pub fn parse(&mut self, new: &[u8]) -> Progress {
        use ChunkPart as P;
        let mut at = 0;
        while let Some(byte) = new.get(at) {
            at += 1;
            self.part = match (self.part, byte) {
                (P::Size, digit) if digit.is_ascii_hexdigit() && self.digits < DIGITS_MAX => {
                    self.digits += 1;
                    self.size = self.size * 16 + u64::from((*digit as char).to_digit(16).unwrap_or_default());
                    P::Size
                }
                (P::Size, b'\r') if self.digits > 0 => P::SizeEnd,
                (P::Size, b';' | b' ' | b'\t') if self.digits > 0 => P::Extension,
                (P::Extension, b'\r') => P::SizeEnd,
                (P::Extension, other) if *other != b'\n' => P::Extension,
                (P::SizeEnd, b'\n') if self.size == 0 => P::Last,
                (P::SizeEnd, b'\n') => P::Data,
                (P::Data, _) => {
                    // This byte and the rest.
                    let there = (new.len() - at + 1) as u64;
                    let taken = usize::try_from(self.size.min(there)).unwrap_or(usize::MAX);
                    self.size -= taken as u64;
                    at += taken - 1;
                    if self.size == 0 { P::DataReturn } else { P::Data }
                }
                (P::DataReturn, b'\r') => P::DataEnd,
                (P::DataEnd, b'\n') => {
                    self.digits = 0;
                    P::Size
                }
                (P::Last, b'\r') => P::LastEnd,
                (P::LastEnd, b'\n') => return Progress::End(at),
                (P::Last, _) => P::Trailer,
                (P::Trailer, b'\r') => P::TrailerEnd,
                (P::Trailer, _) => P::Trailer,
                (P::TrailerEnd, b'\n') => P::Last,
                _ => return Progress::Lost,
            };
        }
        Progress::Within
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head that hyper receives, and how many of the sent bytes it contains, if they arrive in pieces of this length.
    fn head(sent: &[u8], piece: usize) -> (Vec<u8>, Option<usize>) {
        let (mut head, mut got, mut at) = (Head::default(), Vec::new(), 0);
        for new in sent.chunks(piece) {
            let seen = head.parse(new);
            got.extend_from_slice(seen.encoded.as_deref().unwrap_or(&new[..seen.length]));
            at += seen.length;
            if seen.is_whole {
                return (got, Some(at));
            }
        }
        (got, None)
    }

    fn chunked(sent: &[u8], piece: usize) -> Progress {
        let (mut chunks, mut at) = (Chunks::default(), 0);
        for new in sent.chunks(piece) {
            match chunks.parse(new) {
                Progress::Within => at += new.len(),
                Progress::End(length) => return Progress::End(at + length),
                Progress::Lost => return Progress::Lost,
            }
        }
        Progress::Within
    }

    #[test]
    fn only_the_target_is_encoded_for_any_piece_size() {
        let sent =
            b"\r\nGET /a\"b?c=<d>`#\xff\xc3\xa9 HTTP/1.1\r\nX-\"<>: \"<>`#\xff\r\nHost: a\r\n\r\n{\"body\":\"<>\"}";
        let expected = b"\r\nGET /a%22b?c=%3Cd%3E%60%23%FF%C3%A9 HTTP/1.1\r\nX-\"<>: \"<>`#\xff\r\nHost: a\r\n\r\n";
        for piece in 1..sent.len() + 1 {
            let (got, end) = head(sent, piece);
            assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected), "{piece}");
            assert_eq!(end, Some(sent.len() - 13), "{piece}");
        }
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line_with_any_line_ending() {
        for (sent, length) in [
            (&b"GET / HTTP/1.1\r\n\r\nmore\r\n\r\n"[..], Some(18)),
            (b"GET / HTTP/1.1\n\nmore\r\n\r\n", Some(16)),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n\n", Some(23)),
            (b"GET / HTTP/1.1\nA: b\n\n\r\n\r\n", Some(21)),
            (b"\n\n\r\nGET / HTTP/1.1\nA: b\n\n", Some(25)),
            (b"NONSENSE\r\n\r\n", Some(12)),
            (b"GET / HTTP/1.1\r\nA: b\r\r\n", None),
            (b"GET / HTTP/1.1\r\nA: b\r\n \r\n", None),
            (b"\r\n\r\n\r\n", None),
        ] {
            for piece in 1..sent.len() + 1 {
                assert_eq!(head(sent, piece).1, length, "{} {piece}", String::from_utf8_lossy(sent));
            }
        }
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        for (sent, end) in [
            (&b"0\r\n\r\n"[..], Progress::End(5)),
            (b"5\r\n0\r\n\r\n\r\n0\r\n\r\nGET", Progress::End(15)),
            (b"A;x=\"y\"\r\n0123456789\r\n00\r\nT: v\r\n\r\n", Progress::End(33)),
            (b"1 \r\na\r\n0\r\n\r\n", Progress::End(12)),
            (b"1\r\nab", Progress::Lost),
            (b"1\na", Progress::Lost),
            (b"\r\n", Progress::Lost),
            (b"-1\r\n", Progress::Lost),
            (b"0\r\n\rx", Progress::Lost),
            (b"1;a\nb\r\n", Progress::Lost),
            (b"0000000000000001\r\na\r\n0\r\n\r\n", Progress::Lost),
            (b"ff\r\nabc", Progress::Within),
        ] {
            for piece in 1..sent.len() + 1 {
                assert_eq!(chunked(sent, piece), end, "{} {piece}", String::from_utf8_lossy(sent));
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_of_any_content_end_where_they_end(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..6),
            behind in prop::collection::vec(any::<u8>(), 0..30),
            piece in 1..40_usize,
        ) {
            let framed = |chunk: &Vec<u8>| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            let mut sent: Vec<u8> = chunks.iter().flat_map(framed).collect();
            sent.extend_from_slice(b"0\r\n\r\n");
            let end = sent.len();
            sent.extend_from_slice(&behind);
            prop_assert_eq!(chunked(&sent, piece), Progress::End(end));
        }
    }
}
