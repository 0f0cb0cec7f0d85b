//! The encoding of a text: UTF-8, what a byte order mark tells, or what somebody has named. None is guessed.

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

/// Decoded text is handed on in chunks of at most so many bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// Names of ASCII, which the Encoding Standard takes for windows-1252: bytes that are none of its letters would be guessed.
const ASCII: [&str; 3] = ["ascii", "us-ascii", "ansi_x3.4-1968"];

/// The encoding of this name (Encoding Standard, section 4.2); windows-1252 is what `latin1` and `iso-8859-1` mean there.
///
/// # Errors
/// A sentence with what to name.
pub fn named(label: &str) -> Result<&'static Encoding, String> {
    if ASCII.iter().any(|name| label.trim().eq_ignore_ascii_case(name)) {
        return Err(format!("{label:?} says nothing of bytes above 127; name utf-8, which a text in ASCII is as well"));
    }
    Encoding::for_label_no_replacement(label.as_bytes()).ok_or_else(|| {
        format!("{label:?} is no encoding that is known; name one such as utf-8, windows-1252, iso-8859-15 or utf-16le")
    })
}

/// Decodes a text that arrives in chunks.
pub struct Text {
    decoder: Decoder,
    chunk: String,
}

/// Why text was not decoded to its end.
pub enum Undecoded<E> {
    /// The bytes are none of the encoding's; everything before them was handed on.
    Bytes,
    /// Whoever took the text refused it.
    Refused(E),
}

impl Text {
    /// In this encoding, or UTF-8; a byte order mark wins over either.
    pub fn new(encoding: Option<&'static Encoding>) -> Self {
        Self { decoder: encoding.unwrap_or(UTF_8).new_decoder(), chunk: String::with_capacity(CHUNK_BYTES) }
    }

    /// Its name.
    pub fn encoding(&self) -> &'static str {
        self.decoder.encoding().name()
    }

    /// Decodes what has arrived; `is_last` says that nothing follows.
    ///
    /// # Errors
    /// [`Undecoded`].
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        is_last: bool,
        each: &mut impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), Undecoded<E>> {
        loop {
            self.chunk.clear();
            let (result, read) = self.decoder.decode_to_string_without_replacement(bytes, &mut self.chunk, is_last);
            each(&self.chunk).map_err(Undecoded::Refused)?;
            bytes = &bytes[read..];
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => return Err(Undecoded::Bytes),
            }
        }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Text").field("encoding", &self.encoding()).finish_non_exhaustive()
    }
}
