//! Detects compressed data, workbooks and other files by their first bytes, so that they are refused for what they are and not
//! for their first invalid character. No valid text begins with these bytes.

use std::borrow::Cow;

use thiserror::Error;

/// The kind of a content that is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Foreign {
    /// gzip (RFC 1952).
    #[error(
        "is compressed by gzip; send it with the header Content-Encoding: gzip (gunzip a file before it is imported)"
    )]
    Gzip,
    /// A zip archive, which spreadsheet workbooks are.
    #[error("is a zip archive, as .xlsx and .ods workbooks are; save the sheet as CSV, or unpack the archive")]
    Zip,
    /// A workbook of Excel 97 to 2003, or another compound file.
    #[error("is an Excel 97-2003 workbook (.xls); save the sheet as CSV")]
    Workbook,
    /// Another compression format.
    #[error("is compressed by {0}; decompress it, or compress it by gzip and send it with Content-Encoding: gzip")]
    Compressed(&'static str),
    /// Another file format.
    #[error("is {0}; send the rows as text")]
    File(&'static str),
    /// JSON where CSV is expected.
    #[error("is JSON; send it as application/json or application/x-ndjson, or save it as CSV")]
    Json,
    /// Markup where CSV is expected.
    #[error("is {0}; save the rows as CSV")]
    Markup(&'static str),
    /// JSON in an encoding other than UTF-8 (RFC 8259, section 8.1), or CSV in UTF-32.
    #[error("is encoded in {0}; encode it as UTF-8")]
    Encoded(&'static str),
}

/// File signatures.
const SIGNATURES: [(&[u8], Foreign); 15] = [
    (b"\x1f\x8b", Foreign::Gzip),
    (b"PK\x03\x04", Foreign::Zip),
    (b"PK\x05\x06", Foreign::Zip), // an empty archive
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Foreign::Workbook),
    (b"\x28\xb5\x2f\xfd", Foreign::Compressed("zstd")),
    (b"\xfd7zXZ\0", Foreign::Compressed("xz")),
    (b"7z\xbc\xaf\x27\x1c", Foreign::Compressed("7-Zip")),
    (b"Rar!\x1a\x07", Foreign::Compressed("RAR")),
    (b"BZh91AY&SY", Foreign::Compressed("bzip2")), // 9 is the default block size of bzip2
    (b"%PDF-", Foreign::File("a PDF")),
    (b"\xff\xfe\0\0", Foreign::Encoded("UTF-32")),
    (b"\0\0\xfe\xff", Foreign::Encoded("UTF-32")),
    (b"PAR1\x15", Foreign::File("a Parquet file")),
    (b"ARROW1\0\0", Foreign::File("an Arrow file")),
    (b"SQLite format 3\0", Foreign::File("an SQLite database")),
];

/// Starts of texts that are not CSV; no column has a name that begins like this.
const TEXT_FORMATS: [(&str, Foreign); 7] = [
    ("[{", Foreign::Json),
    ("{\"", Foreign::Json),
    ("<?xml", Foreign::Markup("XML")),
    ("<!doctype", Foreign::Markup("HTML")),
    ("<html", Foreign::Markup("HTML")),
    ("<table", Foreign::Markup("HTML")),
    ("{\\rtf", Foreign::Markup("a document in Rich Text Format")),
];

/// The format of a text that is not CSV, according to its first line.
pub fn text_format(line: &str) -> Option<Foreign> {
    let line = line.trim();
    // The first line of indented JSON.
    if matches!(line, "[" | "{") {
        return Some(Foreign::Json);
    }
    let begins = |start: &str| line.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    TEXT_FORMATS.iter().find(|(start, _)| begins(start)).map(|(_, format)| *format)
}

/// The number of bytes that identify the encoding of JSON.
const ENCODING_BYTES: usize = 4;

/// The kind of a content according to its first bytes; `is_json` requires UTF-8.
pub fn foreign(content: &[u8], is_json: bool) -> Option<Foreign> {
    let known = SIGNATURES.iter().find(|(signature, _)| content.starts_with(signature)).map(|(_, foreign)| *foreign);
    known.or_else(|| if is_json { encoding(content).map(Foreign::Encoded) } else { None })
}

/// The encoding of JSON that is not UTF-8: its first character is ASCII, so every other byte of UTF-16 is zero.
fn encoding(content: &[u8]) -> Option<&'static str> {
    match content {
        [0, 0, 0, letter, ..] | [letter, 0, 0, 0, ..] if *letter > 0 => Some("UTF-32"),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => Some("UTF-16"),
        [0, letter, ..] | [letter, 0, ..] if *letter > 0 => Some("UTF-16"),
        _ => None,
    }
}

/// The start of a content that arrives in chunks, buffered until its kind is known.
#[derive(Debug)]
pub struct SignatureCheck {
    is_json: bool,
    /// The buffered bytes; `None` once the kind is known.
    held: Option<Vec<u8>>,
}

impl SignatureCheck {
    /// For CSV, or for JSON.
    pub fn new(is_json: bool) -> Self {
        Self { is_json, held: Some(Vec::new()) }
    }

    /// Takes received bytes and returns those that can be parsed as text; empty while the kind is unknown.
    ///
    /// # Errors
    /// If the content is not text.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, Foreign> {
        let Some(held) = &mut self.held else { return Ok(Cow::Borrowed(bytes)) };
        let begun = if held.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            held.extend_from_slice(bytes);
            Cow::Owned(std::mem::take(held))
        };
        let is_short = |signature: &[u8]| begun.len() < signature.len() && signature.starts_with(&begun);
        let may_be = SIGNATURES.iter().any(|(signature, _)| is_short(signature));
        if may_be || (self.is_json && begun.len() < ENCODING_BYTES) {
            self.held = Some(begun.into_owned());
            return Ok(Cow::Borrowed(&[]));
        }
        self.held = None;
        foreign(&begun, self.is_json).map_or(Ok(begun), Err)
    }

    /// Ends the content; returns the buffered bytes.
    ///
    /// # Errors
    /// If the content is not text.
    pub fn finish(&mut self) -> Result<Vec<u8>, Foreign> {
        let held = self.held.take().unwrap_or_default();
        foreign(&held, self.is_json).map_or(Ok(held), Err)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a content that arrives in chunks of this size.
    fn read(content: &[u8], size: usize, is_json: bool) -> Result<Vec<u8>, Foreign> {
        let mut signature = SignatureCheck::new(is_json);
        let mut read = Vec::new();
        for chunk in content.chunks(size) {
            read.extend_from_slice(&signature.push(chunk)?);
        }
        read.extend(signature.finish()?);
        Ok(read)
    }

    proptest! {
        #[test]
        fn a_text_is_read_whole_whatever_its_chunks(
            text in "(\u{feff}|PK|PAR1|Rar!|%PD|7z|SQLite format 3|BZh9)?\\PC{0,20}", size in 1..9_usize,
        ) {
            prop_assert_eq!(read(text.as_bytes(), size, false), Ok(text.clone().into_bytes()));
        }

        #[test]
        fn the_result_does_not_depend_on_the_chunks_of_a_content(
            which in 0..SIGNATURES.len(), rest in prop::collection::vec(any::<u8>(), 0..20),
            size in 1..9_usize, is_json in any::<bool>(),
        ) {
            let content = [SIGNATURES[which].0, &rest].concat();
            prop_assert_eq!(read(&content, size, is_json), Err(SIGNATURES[which].1));
            prop_assert_eq!(read(&rest, size, is_json), read(&rest, 1000, is_json));
        }
    }

    #[test]
    fn the_encoding_of_json_is_detected_by_its_first_bytes() {
        for (content, expected) in [
            (&b"\xff\xfe{\0"[..], Some("UTF-16")),
            (b"\xfe\xff\0{", Some("UTF-16")),
            (b"{\0\"\0", Some("UTF-16")),
            (b"\0[\0{", Some("UTF-16")),
            (b"\xff\xfe\0\0{\0\0\0", Some("UTF-32")),
            (b"{\0\0\0", Some("UTF-32")),
            (b"\0\0\0{", Some("UTF-32")),
            (b"\xef\xbb\xbf{}", None),
            (b"{}", None),
            (b"", None),
        ] {
            assert_eq!(foreign(content, true), expected.map(Foreign::Encoded), "{content:?}");
            let in_csv = if content.len() > 3 && content.starts_with(b"\xff\xfe\0") { expected } else { None };
            assert_eq!(foreign(content, false), in_csv.map(Foreign::Encoded), "{content:?}");
        }
    }
}
