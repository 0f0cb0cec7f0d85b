//! Where JSON is wrong, and what to write instead.
//!
//! Lines end in LF, CRLF or CR, and columns count characters, as an editor shows them: the parser counts bytes and knows LF
//! alone.

use serde::de::IgnoredAny;

/// A place in a text: its line and its column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The character in it.
    pub column: u64,
}

/// The beginning of a text.
pub const BEGIN: Position = Position { line: 1, column: 1 };
/// How much of a client's text a complaint repeats.
const SHOWN_MAX_CHARS: usize = 20;

impl Default for Position {
    fn default() -> Self {
        BEGIN
    }
}

impl Position {
    /// The place behind these bytes of UTF-8, or of what was meant to be that.
    #[must_use]
    pub fn behind(mut self, bytes: &[u8]) -> Self {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                // Of CRLF the LF ends the line.
                b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
                b'\r' | b'\n' => self = Self { line: self.line + 1, column: 1 },
                other => self.column += u64::from(other & 0xc0 != 0x80),
            }
        }
        self
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "line {} column {}", self.line, self.column)
    }
}

/// The byte at which the parser stopped.
pub fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    let at = (start + error.column()).saturating_sub(1).min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Where a text is no JSON, and what to write instead; it begins at a place of the body.
pub fn syntax(text: &str, begin: Position, error: &serde_json::Error) -> String {
    let at = offset(text, error);
    let advice = advice(text, at).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("at {}{advice}", begin.behind(&text.as_bytes()[..at]))
}

/// What to write instead of what is wrong at this byte, where that is known.
fn advice(text: &str, at: usize) -> Option<String> {
    // A key with half a surrogate pair is one that the parser cannot read.
    let near = (0..=at.saturating_sub(12)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let end = (at..=text.len()).find(|end| *end > at && text.is_char_boundary(*end)).unwrap_or(text.len());
    if let Some((_, escape)) = half_pair(&text[near..end]).filter(|_| text[..at].matches('"').count() % 2 == 1) {
        return Some(half_pair_complaint(escape, None));
    }
    let is_end = |letter: char| letter.is_whitespace() || ",:[]{}\"".contains(letter);
    let begin = text[..at].rfind(is_end).map_or(0, |end| end + 1);
    let begin = (begin..=at).find(|begin| text.is_char_boundary(*begin)).unwrap_or(at);
    let word = &text[begin..];
    let word = &word[..word.find(is_end).unwrap_or(word.len())];
    let shown: String = word.chars().take(SHOWN_MAX_CHARS).collect();
    let before = text[..begin].trim_end().chars().next_back();
    match word.to_ascii_lowercase().as_str() {
        "true" | "false" | "null" if *word != word.to_ascii_lowercase() => {
            return Some(format!("write {} in small letters", word.to_ascii_lowercase()));
        }
        "nan" | "-nan" | "inf" | "-inf" | "+inf" | "infinity" | "-infinity" | "+infinity" | "none" | "nil" | "na"
        | "undefined" => {
            return Some(format!("JSON has no {shown}; send null where the field may be null"));
        }
        _ => {}
    }
    match word.chars().next() {
        Some('\'' | '‘' | '’' | '“' | '”' | '„' | '`') => {
            Some("strings and keys stand in double quotes".to_owned())
        }
        Some('/' | '#') => Some("JSON has no comments".to_owned()),
        Some(first) if serde_json::from_str::<IgnoredAny>(word).is_ok() && first.is_ascii() => None,
        Some(first) if first.is_numeric() || "+-.−".contains(first) => {
            Some(format!("{shown} is no number of JSON, which are such as 10, -0.5 and 1e3"))
        }
        None if before == Some(',') && text[at..].starts_with(['}', ']']) => {
            Some("leave out the comma behind the last one".to_owned())
        }
        None if before == Some('}') && text[at..].starts_with('{') => Some(
            "several objects stand in an array with commas between them, or each on its line as application/x-ndjson"
                .to_owned(),
        ),
        Some(first) if first.is_alphabetic() && matches!(before, Some('{' | ',')) => {
            Some("keys stand in double quotes".to_owned())
        }
        _ => None,
    }
}

/// The first half of a surrogate pair without its other half (RFC 8259, section 8.2): where it is, and its escape.
pub fn half_pair(raw: &str) -> Option<(usize, &str)> {
    let bytes = raw.as_bytes();
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let mut at = 0;
    while at < bytes.len() {
        at += match (bytes[at], unit(at)) {
            (b'\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff)) => return Some((at, &raw[at..at + 6])),
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    None
}

/// What is the matter with such a half, and where it is unless that is said already.
pub fn half_pair_complaint(escape: &str, at: Option<Position>) -> String {
    let place = at.map(|at| format!(" at {at}")).unwrap_or_default();
    format!(
        "{escape}{place} is half of a surrogate pair; send both halves, such as \\ud83d\\ude00, or the character itself"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let error = serde_json::from_str::<IgnoredAny>(text).expect_err(text);
        syntax(text, BEGIN, &error)
    }

    #[test]
    fn the_place_is_that_of_an_editor_whatever_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("{{{end}{end} \"né\": \"é\" x}}");
            assert!(complaint(&text).starts_with("at line 3 column 12"), "{}", complaint(&text));
        }
        assert_eq!(BEGIN.behind("a\r\né\r".as_bytes()), Position { line: 3, column: 1 });
    }

    #[test]
    fn what_other_languages_write_is_told_what_json_has() {
        for (text, expected) in [
            ("{\"a\": NaN}", "JSON has no NaN; send null"),
            ("{\"a\":-Infinity}", "JSON has no -Infinity"),
            ("[None]", "JSON has no None"),
            ("{\"a\":True}", "write true in small letters"),
            ("{\"a\":NULL}", "write null in small letters"),
            ("{'a':1}", "double quotes"),
            ("{\"a\":“b”}", "double quotes"),
            ("{a:1}", "keys stand in double quotes"),
            ("{\"a\":1,}", "leave out the comma"),
            ("[1,]", "leave out the comma"),
            ("{\"a\":1}\n{\"a\":2}", "several objects stand in an array"),
            ("{\"a\":1, // x\n\"b\":2}", "no comments"),
            ("{\"a\":0x10}", "0x10 is no number of JSON"),
            ("{\"a\":+5}", "+5 is no number of JSON"),
            ("{\"a\":.5}", ".5 is no number of JSON"),
            ("{\"a\":5.}", "5. is no number of JSON"),
            ("{\"a\":007}", "007 is no number of JSON"),
            ("{\"a\":1_000}", "1_000 is no number of JSON"),
            ("{\"a\":١٢}", "١٢ is no number of JSON"),
        ] {
            assert!(complaint(text).contains(expected), "{text}: {}", complaint(text));
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_found() {
        for (raw, expected) in [
            (r#""a\ud83d""#, Some((2, r"\ud83d"))),
            (r#""\uDE00""#, Some((1, r"\uDE00"))),
            (r#""\ud83d\ud83d\ude00""#, Some((1, r"\ud83d"))),
            (r#""\ud83d\ude00\\ud83d""#, None),
            (r#""\ud83dx""#, Some((1, r"\ud83d"))),
            (r#""☃\u""#, None),
        ] {
            assert_eq!(half_pair(raw), expected, "{raw}");
        }
    }
}
