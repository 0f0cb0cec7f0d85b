//! Splits a JSON body into the members of its one object, leaving each value as raw text.
//!
//! So every field can be judged on its own, and a number that overflows, a text with half a surrogate pair or a value
//! nested a million deep is a fault of its field rather than of the document. `fault` says where what is wrong.

pub mod fault;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use self::fault::{BEGIN, Position, half_pair, half_pair_complaint, syntax};
use super::problem::{Code, FieldError, Problem};
use crate::csv::opening::foreign;

/// Members are compared pairwise, so their number is bounded: a body of 1 MiB could hold 200,000 of them.
pub const MEMBERS_MAX: usize = 100;
const CROWDED: &str = "too many members";

/// The members of the top-level object.
#[derive(Debug)]
pub struct Members<'a> {
    /// Each key's first value, in the body's order.
    pub values: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The keys that came more than once.
    pub repeated: Vec<Cow<'a, str>>,
    /// All of it, to say where something is.
    text: &'a str,
    /// Where in the body it begins.
    begin: Position,
}

impl<'a> Members<'a> {
    /// Splits an object that begins at a place of the body.
    ///
    /// # Errors
    /// Why it cannot be split.
    pub fn parse(text: &'a str, begin: Position) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(|members| Self { text, begin, ..members })
    }

    /// What is the matter with a text that has half a surrogate pair in it, and where that is.
    pub fn half_pair(&self, value: &RawValue) -> Option<String> {
        let raw = value.get();
        let (at, escape) = half_pair(raw).filter(|_| raw.starts_with('"'))?;
        let before = (raw.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)? + at;
        let place = self.begin.behind(self.text.as_bytes().get(..before)?);
        Some(half_pair_complaint(escape, Some(place)))
    }
}

/// The byte order mark of UTF-8, which editors and spreadsheets put in front of a text.
pub const MARK: &[u8] = b"\xef\xbb\xbf";

/// The same text without the mark in front of it (RFC 8259, section 8.1, allows to ignore it).
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Reads a body that must be one JSON object; `fields` says what it holds, for the complaint when it is something else.
///
/// # Errors
/// 400 when the body is no JSON, 422 when it is JSON and no object.
pub fn members(body: &[u8], fields: impl Fn() -> String) -> Result<Members<'_>, Problem> {
    let not_json = |detail: String| Err(Problem::new(Code::InvalidJson, detail));
    if let Some(foreign) = foreign(body, true) {
        return not_json(format!("the body {foreign}"));
    }
    let body = without_mark(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return not_json("the body is empty; send a JSON object".to_owned());
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let place = BEGIN.behind(&body[..error.valid_up_to()]);
            return not_json(format!("the body is not UTF-8 at {place}; encode it as UTF-8"));
        }
    };
    Members::parse(text, BEGIN).or_else(|error| match error.classify() {
        Category::Data if is_crowded(&error) => Err(Problem::fields(vec![FieldError {
            pointer: String::new(),
            detail: format!("must have at most {MEMBERS_MAX} members").into(),
        }])),
        Category::Data => Err(Problem::fields(vec![FieldError {
            pointer: String::new(),
            detail: format!("must be one JSON object with the fields {}", fields()).into(),
        }])),
        _ => not_json(format!(
            "the body is not valid JSON {}; correct it and send it again",
            syntax(text, BEGIN, &error)
        )),
    })
}

/// Whether an object has more members than are taken.
pub fn is_crowded(error: &serde_json::Error) -> bool {
    error.to_string().starts_with(CROWDED)
}

/// A JSON string's text, borrowed where it has no escapes; `None` for any other type or half a surrogate pair.
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let (values, repeated) = (Vec::new(), Vec::new());
                let mut members = Members { values, repeated, text: "", begin: BEGIN };
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &RawValue>()? {
                    if members.values.len() == MEMBERS_MAX {
                        return Err(A::Error::custom(CROWDED));
                    }
                    if !members.values.iter().any(|(known, _)| *known == key) {
                        members.values.push((key, value));
                    } else if !members.repeated.contains(&key) {
                        members.repeated.push(key);
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A key, borrowed from the body unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}
