//! Query strings and form bodies: parses raw text into parameters and reports every error.
//!
//! Names are known in advance and occur at most once, unless they are repeatable; `+` is a space and `%XX` a byte of UTF-8
//! (WHATWG URL standard, section 5.1). Errors are collected, so that the response lists all of them and not only the first.

pub mod suggestion;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use self::suggestion::suggest;
use super::problem::{ParameterError, Problem};

/// Names and values are truncated to this length in errors.
const SHOWN_MAX_CHARS: usize = 50;

/// Further errors are not listed: a body of 1 MiB could hold half a million unknown names.
const FAULTS_MAX: usize = 20;

/// The parameters of one request, and their errors.
#[derive(Debug)]
pub struct Query<'a> {
    repeatable: &'static [&'static str],
    single: &'static [&'static str],
    values: Vec<(&'static str, Cow<'a, str>)>,
    faults: Vec<ParameterError>,
}

impl<'a> Query<'a> {
    /// Splits and decodes a query string; errors are returned by [`Query::finish`].
    pub fn parse(text: &'a str, known: &'static [&'static str]) -> Self {
        Self::parse_repeatable(text, &[], known)
    }

    /// The same with some parameters that may be repeated.
    pub fn parse_repeatable(
        text: &'a str,
        repeatable: &'static [&'static str],
        single: &'static [&'static str],
    ) -> Self {
        let mut query = Self { repeatable, single, values: Vec::new(), faults: Vec::new() };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if query.faults.len() == FAULTS_MAX {
                break;
            }
            query.take(pair);
        }
        query
    }

    fn take(&mut self, pair: &'a str) {
        let (name, given) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
        let value = given.unwrap_or_default();
        let decoded = decode(name).unwrap_or(Cow::Borrowed(name));
        let mut known = self.repeatable.iter().chain(self.single).copied();
        let Some(name) = known.find(|known| *known == decoded) else {
            let shown: String = decoded.chars().take(SHOWN_MAX_CHARS).collect();
            if !self.has_fault(&shown) {
                let known = [self.repeatable, self.single].concat();
                let given = given.map(|value| decode(value).unwrap_or(Cow::Borrowed(value)));
                let given = given.map(|value| value.chars().take(SHOWN_MAX_CHARS).collect::<String>());
                let suggestion = suggest(&shown, given.as_deref(), self.repeatable, &known);
                let suggestion = suggestion.map(|suggestion| format!("{suggestion}; ")).unwrap_or_default();
                let known = if known.is_empty() {
                    "no parameters are supported here".to_owned()
                } else {
                    format!("the parameters are {}", known.join(", "))
                };
                self.faults.push(ParameterError::new(shown, format!("is unknown; {suggestion}{known}")));
            }
            return;
        };
        let again = !self.repeatable.contains(&name) && self.get(name).is_some();
        if again || self.has_fault(name) {
            if !self.has_fault(name) {
                self.fault(name, "is a duplicate parameter; keep one");
            }
            return;
        }
        match decode(value) {
            Some(value) => self.values.push((name, value)),
            None if are_digits_behind_percents(value) => {
                self.fault(name, "is not percent-encoded UTF-8; encode each byte of its UTF-8");
            }
            None => {
                let pattern = if self.repeatable.contains(&name) { ", or * instead of it in a pattern" } else { "" };
                self.fault(name, format!("is not percent-encoded UTF-8; write %25 for a percent sign{pattern}"));
            }
        }
    }

    fn has_fault(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.parameter == name)
    }

    /// The decoded text of a parameter, if it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    /// The decoded texts of a repeatable parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    /// Reads an optional parameter; if `read` returns `None`, `rule` is the error.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        rule: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.get(name)?);
        if value.is_none() {
            self.fault(name, rule);
        }
        value
    }

    /// The same with an error from `read`.
    pub fn checked<T>(&mut self, name: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(self.get(name)?) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.fault(name, detail);
                None
            }
        }
    }

    /// The same as [`Self::optional`] for a required parameter.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        rule: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.get(name).is_none() && !self.has_fault(name) {
            self.fault(name, format!("is missing; it {rule}"));
        }
        self.optional(name, rule, read)
    }

    /// Adds an error, such as one that concerns two parameters.
    pub fn fault(&mut self, name: &'static str, detail: impl Into<Cow<'static, str>>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(ParameterError::new(name.to_owned(), detail));
        }
    }

    /// Completes the parsing.
    ///
    /// # Errors
    /// 400 that lists every invalid parameter.
    pub fn finish(&mut self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::parameters(std::mem::take(&mut self.faults))) }
    }

    /// Serializes the query with one parameter set to another value: the next page's query.
    pub fn with(&self, name: &str, value: &str) -> String {
        self.replacing(&[name], name, value)
    }

    /// Serializes the query with one parameter in place of some others.
    pub fn replacing(&self, dropped: &[&str], name: &str, value: &str) -> String {
        let kept = self.values.iter().filter(|(known, _)| !dropped.contains(known));
        let mut text = String::new();
        for (name, value) in kept.map(|(name, value)| (*name, value.as_ref())).chain([(name, value)]) {
            if !text.is_empty() {
                text.push('&');
            }
            encode(name, &mut text);
            text.push('=');
            encode(value, &mut text);
        }
        text
    }
}

/// All but RFC 3986's unreserved characters, so that a text is valid in a URL and in a header, and except filter characters
/// that have no special meaning in either, which keeps links short.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b':');

/// `None` if a percent sign is not followed by two hexadecimal digits, or the bytes are not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    if !are_digits_behind_percents(text) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

fn are_digits_behind_percents(text: &str) -> bool {
    let is_byte = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    text.split('%').skip(1).all(is_byte)
}

fn encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, RESERVED));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["component", "limit"];

    fn complaint(text: &str) -> String {
        let mut query = Query::parse(text, KNOWN);
        query.required("component", "must be short", |text| (text.len() < 5).then_some(()));
        query.optional("limit", "must be a number", |text| text.parse::<u32>().ok());
        query.finish().map_err(|problem| format!("{problem:?}")).err().unwrap_or_default()
    }

    #[test]
    fn every_fault_is_named_once() {
        assert_eq!(complaint("component=a%20+b&limit=7"), "");
        assert_eq!(complaint("&&component=a&"), "");
        for (text, names) in [
            ("", vec!["component is missing"]),
            ("limit=x", vec!["component is missing", "limit must be a number"]),
            ("component=a&component=b&component=c", vec!["component is a duplicate parameter"]),
            ("component=%ff&limit=%4", vec!["component is not percent", "limit is not percent"]),
            ("component=%+1&limit=1", vec!["component is not percent"]),
            ("component=abcdefg&limt=1&limt=2", vec!["component must be short", "limt is unknown"]),
        ] {
            let complaint = complaint(text);
            for name in &names {
                assert_eq!(complaint.matches(name).count(), 1, "{text}: {complaint}");
            }
            assert_eq!(complaint.matches("ParameterError").count(), names.len(), "{text}: {complaint}");
        }
    }

    #[test]
    fn many_unknown_names_result_in_a_bounded_response() {
        let text: String = (0..50_000).map(|number| format!("x{number}&")).collect();
        assert_eq!(complaint(&text).matches("ParameterError").count(), FAULTS_MAX);
    }

    #[test]
    fn the_next_page_keeps_the_other_parameters() {
        let query = Query::parse("limit=2&component=a+%26%3E%C5%BC", KNOWN);
        assert_eq!(query.with("limit", "3"), "component=a%20%26%3E%C5%BC&limit=3");
    }

    proptest! {
        #[test]
        fn encoding_round_trips(text in ".*") {
            let mut encoded = String::new();
            encode(&text, &mut encoded);
            prop_assert!(encoded.is_ascii());
            let decoded = decode(&encoded);
            prop_assert_eq!(decoded.as_deref(), Some(text.as_str()));
        }

        #[test]
        fn any_text_can_be_split(text in ".*") {
            let _ = Query::parse(&text, KNOWN).finish();
        }
    }
}
