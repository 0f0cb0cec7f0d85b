//! Splits a JSON body into the members of its one object, leaving each value as raw text.
//!
//! Every field is validated on its own, so that a number that overflows, a string with an unpaired surrogate or a value nested
//! a million levels deep is an error of its field rather than of the document. `fault` locates syntax errors.

pub mod fault;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use self::fault::{BEGIN, Position, syntax, unpaired_surrogate, unpaired_surrogate_error};
use super::problem::{Code, FieldError, Problem};
use crate::csv::signature::foreign;

/// Members are compared pairwise, so their number is limited: a body of 1 MiB could hold 200,000 of them.
pub const MEMBERS_MAX: usize = 300;
const TOO_MANY_MEMBERS: &str = "too many members";

/// The members of the top-level object.
#[derive(Debug)]
pub struct Members<'a> {
    /// The first value of each key, in the body's order.
    pub values: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The duplicate keys.
    pub repeated: Vec<Cow<'a, str>>,
    /// The whole text, to locate values.
    text: &'a str,
    /// The position at which the text begins in the body.
    begin: Position,
}

impl<'a> Members<'a> {
    /// Splits an object that begins at this position of the body.
    ///
    /// # Errors
    /// If the text is not an object, or has too many members.
    pub fn parse(text: &'a str, begin: Position) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(|members| Self { text, begin, ..members })
    }

    /// Describes and locates an unpaired surrogate in a string.
    pub fn unpaired_surrogate(&self, value: &RawValue) -> Option<String> {
        let raw = value.get();
        let (at, escape) = unpaired_surrogate(raw).filter(|_| raw.starts_with('"'))?;
        let before = (raw.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)? + at;
        let place = self.begin.after(self.text.as_bytes().get(..before)?);
        Some(unpaired_surrogate_error(escape, Some(place)))
    }
}

/// The UTF-8 byte order mark, which editors and spreadsheets write at the start of a text.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Removes a leading byte order mark (RFC 8259, section 8.1, allows ignoring it).
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// Reads a body that must be one JSON object; `fields` lists its fields, for the error if it is something else.
///
/// # Errors
/// 400 if the body is not JSON, 422 if it is JSON but not an object.
pub fn members(body: &[u8], fields: impl Fn() -> String) -> Result<Members<'_>, Problem> {
    let not_json = |detail: String| Err(Problem::new(Code::InvalidJson, detail));
    if let Some(foreign) = foreign(body, true) {
        return not_json(format!("the body {foreign}"));
    }
    let body = without_bom(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return not_json("the body is empty; send a JSON object".to_owned());
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let place = BEGIN.after(&body[..error.valid_up_to()]);
            return not_json(format!("the body is not UTF-8 at {place}; encode it as UTF-8"));
        }
    };
    Members::parse(text, BEGIN).or_else(|error| match error.classify() {
        Category::Data if has_too_many_members(&error) => Err(Problem::fields(vec![FieldError {
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

/// Returns true if parsing failed because the object has too many members.
pub fn has_too_many_members(error: &serde_json::Error) -> bool {
    error.to_string().starts_with(TOO_MANY_MEMBERS)
}

/// The text of a JSON string, borrowed if it has no escapes; `None` for any other type or an unpaired surrogate.
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
                        return Err(A::Error::custom(TOO_MANY_MEMBERS));
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
