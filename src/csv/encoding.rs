//! Text encodings: UTF-8, that of a byte order mark, or one given by the caller. Encodings are never guessed.

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

/// Maximum bytes per chunk of decoded text.
const CHUNK_BYTES: usize = 16 * 1024;

/// Names of ASCII, which the Encoding Standard maps to windows-1252; non-ASCII bytes would then be guessed.
const ASCII: [&str; 3] = ["ascii", "us-ascii", "ansi_x3.4-1968"];

/// Names that Python, R, Java and Windows use, without punctuation, and the label in the Encoding Standard.
const ALIASES: [(&str, &str); 17] = [
    ("utf8sig", "utf-8"), // Python: with a byte order mark
    ("utf8bom", "utf-8"), // R: the same
    ("cp65001", "utf-8"),
    ("latin9", "iso-8859-15"),
    ("cp932", "shift_jis"),
    ("cp936", "gbk"),
    ("ms936", "gbk"),
    ("cp949", "euc-kr"),
    ("cp950", "big5"),
    ("macroman", "macintosh"),
    ("utf16", "utf-16le"),
    ("utf16le", "utf-16le"),
    ("utf16be", "utf-16be"),
    ("shiftjis", "shift_jis"),
    ("eucjp", "euc-jp"),
    ("euckr", "euc-kr"),
    ("koi8r", "koi8-r"),
];

/// The encoding with this label (Encoding Standard, section 4.2, in which `latin1` and `iso-8859-1` mean windows-1252).
/// Punctuation is ignored: Python writes `latin-1`, `utf_8` and `utf-16-le`.
///
/// # Errors
/// If the label is unknown, with valid alternatives.
pub fn named(label: &str) -> Result<&'static Encoding, String> {
    if ASCII.iter().any(|name| label.trim().eq_ignore_ascii_case(name)) {
        return Err(format!("{label:?} does not define bytes above 127; name utf-8, of which ASCII is a subset"));
    }
    let plain: String = label.to_ascii_lowercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "");
    let alias = ALIASES.iter().find(|(name, _)| *name == plain).map(|(_, label)| (*label).to_owned());
    let alias = alias.unwrap_or_else(|| plain.replace("windows", "cp"));
    let found = Encoding::for_label_no_replacement(label.as_bytes());
    found.or_else(|| Encoding::for_label_no_replacement(alias.as_bytes())).ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_other_programs_are_known() {
        for (label, expected) in [
            ("UTF8", "UTF-8"),
            ("utf-8-sig", "UTF-8"),
            ("UTF-8-BOM", "UTF-8"),
            ("latin-1", "windows-1252"),
            ("latin_1", "windows-1252"),
            ("ISO_8859_15", "ISO-8859-15"),
            ("latin9", "ISO-8859-15"),
            ("Windows 1254", "windows-1254"),
            ("cp932", "Shift_JIS"),
            ("utf_16_le", "UTF-16LE"),
            ("GB18030", "gb18030"),
        ] {
            assert_eq!(named(label).map(Encoding::name), Ok(expected), "{label}");
        }
        for label in ["", "ascii", "cp850", "utf-32", "ansi"] {
            assert!(named(label).is_err(), "{label}");
        }
    }
}
