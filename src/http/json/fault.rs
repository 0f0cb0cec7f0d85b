//! Locates JSON syntax errors and suggests corrections.
//!
//! Lines end in LF, CRLF or CR, and columns count characters, as in an editor; the parser counts bytes and recognizes only LF.

use serde::de::IgnoredAny;

/// A position in a text: line and column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// The start of a text.
pub const BEGIN: Position = Position { line: 1, column: 1 };
/// Maximum characters of a client's text that an error repeats.
const SHOWN_MAX_CHARS: usize = 20;

impl Default for Position {
    fn default() -> Self {
        BEGIN
    }
}

impl Position {
    /// The position after these bytes of UTF-8, or of bytes that should be UTF-8.
    #[must_use]
    pub fn after(mut self, bytes: &[u8]) -> Self {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                // In CRLF the LF ends the line.
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

/// The byte offset at which the parser stopped.
pub fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    let at = (start + error.column()).saturating_sub(1).min(text.len());
    // The parser stops before a control character in a string.
    let is_before_control = matches!(text.as_bytes().get(at + 1), Some(..b' ')) && is_in_string(&text[..=at]);
    let at = at + usize::from(is_before_control);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Describes a syntax error and how to correct it; the text begins at this position of the body.
pub fn syntax(text: &str, begin: Position, error: &serde_json::Error) -> String {
    let at = offset(text, error);
    let advice = advice(text, at).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("at {}{advice}", begin.after(&text.as_bytes()[..at]))
}

/// Whether a text ends within a string.
fn is_in_string(text: &str) -> bool {
    let (mut is_inside, mut bytes) = (false, text.bytes());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_inside => drop(bytes.next()),
            b'"' => is_inside = !is_inside,
            _ => {}
        }
    }
    is_inside
}

/// How to correct the error at this byte, if known.
fn advice(text: &str, at: usize) -> Option<String> {
    // The parser cannot read a key with an unpaired surrogate.
    let near = (0..=at.saturating_sub(12)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let end = (at..=text.len()).find(|end| *end > at && text.is_char_boundary(*end)).unwrap_or(text.len());
    if let Some((_, escape)) = unpaired_surrogate(&text[near..end]).filter(|_| text[..at].matches('"').count() % 2 == 1)
    {
        return Some(unpaired_surrogate_error(escape, None));
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
            return Some(format!("write {} in lower case", word.to_ascii_lowercase()));
        }
        "nan" | "-nan" | "inf" | "-inf" | "+inf" | "infinity" | "-infinity" | "+infinity" | "none" | "nil" | "na"
        | "undefined" => {
            return Some(format!("JSON has no {shown}; send null if the field may be null"));
        }
        _ => {}
    }
    if let Some(control) = text[at..].chars().next().filter(|letter| *letter < ' ' && is_in_string(&text[..at])) {
        let escape = match control {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            other => format!("\\u{:04x}", u32::from(other)),
        };
        return Some(format!("write {escape} for the control character in the string"));
    }
    match word.chars().next() {
        Some('\'' | '‘' | '’' | '“' | '”' | '„' | '`') => {
            Some("strings and keys must be in double quotes".to_owned())
        }
        Some('/' | '#') => Some("JSON has no comments".to_owned()),
        Some(first) if serde_json::from_str::<IgnoredAny>(word).is_ok() && first.is_ascii() => None,
        Some(first) if first.is_numeric() || "+-.−".contains(first) => {
            Some(format!("{shown} is not a JSON number, such as 10, -0.5 or 1e3"))
        }
        None if before == Some(',') && text[at..].starts_with(['}', ']']) => {
            Some("remove the trailing comma".to_owned())
        }
        None if before == Some('}') && text[at..].starts_with('{') => Some(
            "send several objects in an array, separated by commas, or each on its own line as application/x-ndjson"
                .to_owned(),
        ),
        None if before == Some('}') && text[at..].trim_end() == "," => {
            Some("remove the comma after the object, or send the objects in an array as application/json".to_owned())
        }
        Some(first) if first.is_alphabetic() && matches!(before, Some('{' | ',')) => {
            Some("keys must be in double quotes".to_owned())
        }
        _ => None,
    }
}

/// The first unpaired surrogate (RFC 8259, section 8.2): its offset and its escape.
pub fn unpaired_surrogate(raw: &str) -> Option<(usize, &str)> {
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

/// Describes an unpaired surrogate, with its position if given.
pub fn unpaired_surrogate_error(escape: &str, at: Option<Position>) -> String {
    let place = at.map(|at| format!(" at {at}")).unwrap_or_default();
    format!(
        "{escape}{place} is an unpaired surrogate; send both surrogates, such as \\ud83d\\ude00, or the character \
         itself"
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
    fn positions_match_an_editors_for_any_line_ending() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("{{{end}{end} \"né\": \"é\" x}}");
            assert!(complaint(&text).starts_with("at line 3 column 12"), "{}", complaint(&text));
        }
        assert_eq!(BEGIN.after("a\r\né\r".as_bytes()), Position { line: 3, column: 1 });
    }

    #[test]
    fn literals_of_other_languages_get_a_suggestion() {
        for (text, expected) in [
            ("{\"a\": NaN}", "JSON has no NaN; send null"),
            ("{\"a\":-Infinity}", "JSON has no -Infinity"),
            ("[None]", "JSON has no None"),
            ("{\"a\":True}", "write true in lower case"),
            ("{\"a\":NULL}", "write null in lower case"),
            ("{'a':1}", "double quotes"),
            ("{\"a\":“b”}", "double quotes"),
            ("{a:1}", "keys must be in double quotes"),
            ("{\"a\":1,}", "remove the trailing comma"),
            ("[1,]", "remove the trailing comma"),
            ("{\"a\":\"b\nc\"}", "at line 1 column 8; write \\n for the control character"),
            ("{\"a\":\"\\\"\tc\"}", "at line 1 column 9; write \\t for the control character"),
            ("{\"a\":\"b\u{1}c\"}", "write \\u0001 for the control character"),
            ("{\"a\":1}\n{\"a\":2}", "send several objects in an array"),
            ("{\"a\":1},\n", "remove the comma after the object"),
            ("{\"a\":1, // x\n\"b\":2}", "no comments"),
            ("{\"a\":0x10}", "0x10 is not a JSON number"),
            ("{\"a\":+5}", "+5 is not a JSON number"),
            ("{\"a\":.5}", ".5 is not a JSON number"),
            ("{\"a\":5.}", "5. is not a JSON number"),
            ("{\"a\":007}", "007 is not a JSON number"),
            ("{\"a\":1_000}", "1_000 is not a JSON number"),
            ("{\"a\":١٢}", "١٢ is not a JSON number"),
        ] {
            assert!(complaint(text).contains(expected), "{text}: {}", complaint(text));
        }
    }

    #[test]
    fn an_unpaired_surrogate_is_found() {
        for (raw, expected) in [
            (r#""a\ud83d""#, Some((2, r"\ud83d"))),
            (r#""\uDE00""#, Some((1, r"\uDE00"))),
            (r#""\ud83d\ud83d\ude00""#, Some((1, r"\ud83d"))),
            (r#""\ud83d\ude00\\ud83d""#, None),
            (r#""\ud83dx""#, Some((1, r"\ud83d"))),
            (r#""☃\u""#, None),
        ] {
            assert_eq!(unpaired_surrogate(raw), expected, "{raw}");
        }
    }
}
