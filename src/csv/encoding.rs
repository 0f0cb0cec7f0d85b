//! Text encodings: UTF-8, that of a byte order mark, or one given by the caller. Encodings are never guessed.

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

/// Maximum bytes per chunk of decoded text.
const CHUNK_BYTES: usize = 16 * 1024;

/// Names of ASCII, which the Encoding Standard maps to windows-1252; non-ASCII bytes would then be guessed.
const ASCII: [&str; 3] = ["ascii", "us-ascii", "ansi_x3.4-1968"];

/// The encoding with this label (Encoding Standard, section 4.2, in which `latin1` and `iso-8859-1` mean windows-1252).
///
/// # Errors
/// If the label is unknown, with valid alternatives.
pub fn named(label: &str) -> Result<&'static Encoding, String> {
    if ASCII.iter().any(|name| label.trim().eq_ignore_ascii_case(name)) {
        return Err(format!("{label:?} does not define bytes above 127; name utf-8, of which ASCII is a subset"));
    }
    Encoding::for_label_no_replacement(label.as_bytes()).ok_or_else(|| {
        format!("{label:?} is not a known encoding; name one such as utf-8, windows-1252, iso-8859-15 or utf-16le")
    })
}

/// Decodes a text that arrives in chunks.
pub struct Text {
    decoder: Decoder,
    chunk: String,
}

/// Why decoding ended early.
pub enum Undecoded<E> {
    /// The bytes are not valid in the encoding; everything before them was passed on.
    Bytes,
    /// The receiver of the text refused it.
    Refused(E),
}

impl Text {
    /// A decoder for this encoding, or UTF-8; a byte order mark overrides both.
    pub fn new(encoding: Option<&'static Encoding>) -> Self {
        Self { decoder: encoding.unwrap_or(UTF_8).new_decoder(), chunk: String::with_capacity(CHUNK_BYTES) }
    }

    /// The name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.decoder.encoding().name()
    }

    /// Decodes further bytes; `is_last` is true if none follow.
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
