//! Reads a passenger out of a JSON body and finds every fault in it, not only the first.
//!
//! The object is split into its members first, each value left as raw text; then every field is judged on its own. So a
//! number that overflows, a text with half a surrogate pair or a value nested a million deep is a fault of its field
//! rather than of the document. What the server makes, the uuid, is never taken from here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::model::{Details, Field, check_age, check_class, check_count, check_fare, check_name, check_sex};
use crate::http::problem::{Code, FieldError, Problem};

/// What the body may say about the uuid.
#[derive(Debug, Clone, Copy)]
pub enum UuidRule {
    /// The server makes it, so the body must not name one.
    Refused,
    /// It may be repeated when it equals the path's.
    Equals(Uuid),
}

/// Reads a whole passenger.
///
/// # Errors
/// 400 when the body is no JSON, 422 with one entry per field at fault.
pub fn read(body: &[u8], uuid: UuidRule) -> Result<Details<'_>, Problem> {
    let members = members(body)?;
    let mut errors = Vec::new();
    let mut fields = Fields::default();
    for (key, value) in &members.0 {
        match key {
            Key::Field(field) => fields.put(*field, value, &mut errors),
            Key::Uuid => check_uuid(value, uuid, &mut errors),
            Key::Unknown(name) => {
                errors.push(FieldError::new(name, format!("is unknown; the fields are {}", known_fields())));
            }
        }
    }
    for key in &members.1 {
        errors.push(FieldError::new(key.name(), "stands in the body more than once; keep one"));
    }
    fields.finish(errors)
}

fn known_fields() -> String {
    Field::ALL.map(Field::name).join(", ")
}

fn check_uuid(value: &RawValue, rule: UuidRule, errors: &mut Vec<FieldError>) {
    match rule {
        UuidRule::Refused => errors.push(FieldError::new("uuid", "is made by the server; leave it out")),
        UuidRule::Equals(expected) => {
            let given = serde_json::from_str::<Cow<str>>(value.get()).ok().and_then(|text| Uuid::try_parse(&text).ok());
            if given != Some(expected) {
                errors.push(FieldError::new("uuid", "must equal the uuid in the path; correct it or leave it out"));
            }
        }
    }
}

/// The values read so far; a field that was present and wrong stays empty and has its error already.
#[derive(Default)]
struct Fields<'a> {
    seen: [bool; Field::ALL.len()],
    survived: Option<bool>,
    class: Option<i16>,
    name: Option<Cow<'a, str>>,
    sex: Option<super::model::Sex>,
    age: Option<Option<f64>>,
    siblings: Option<i32>,
    parents: Option<i32>,
    fare: Option<f64>,
}

impl<'a> Fields<'a> {
    fn put(&mut self, field: Field, value: &'a RawValue, errors: &mut Vec<FieldError>) {
        self.seen[field as usize] = true;
        let raw = value.get();
        let taken = match field {
            Field::Survived => store(&mut self.survived, raw.parse().ok()),
            Field::PassengerClass => store(&mut self.class, number(raw).and_then(check_class)),
            Field::Name => store(&mut self.name, text(raw).filter(|name| check_name(name).is_some())),
            Field::Sex => store(&mut self.sex, text(raw).and_then(|sex| check_sex(&sex))),
            Field::Age if raw == "null" => store(&mut self.age, Some(None)),
            Field::Age => store(&mut self.age, number(raw).and_then(check_age).map(Some)),
            Field::SiblingsOrSpousesAboard => store(&mut self.siblings, number(raw).and_then(check_count)),
            Field::ParentsOrChildrenAboard => store(&mut self.parents, number(raw).and_then(check_count)),
            Field::Fare => store(&mut self.fare, number(raw).and_then(check_fare)),
        };
        if !taken {
            errors.push(field.error());
        }
    }

    fn finish(self, mut errors: Vec<FieldError>) -> Result<Details<'a>, Problem> {
        for field in Field::ALL {
            if !self.seen[field as usize] {
                errors.push(FieldError::new(field.name(), format!("is missing; it {}", field.rule())));
            }
        }
        if !errors.is_empty() {
            return Err(Problem::fields(errors));
        }
        // No field is missing and none was wrong, so each has its value.
        let details = || {
            Some(Details {
                survived: self.survived?,
                passenger_class: self.class?,
                name: self.name?,
                sex: self.sex?,
                age: self.age?,
                siblings_or_spouses_aboard: self.siblings?,
                parents_or_children_aboard: self.parents?,
                fare: self.fare?,
            })
        };
        Ok(details().expect("every field was seen and none failed"))
    }
}

/// Keeps a value if there is one, and says whether there was.
fn store<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

/// A JSON number as a double; `None` for any other type.
fn number(raw: &str) -> Option<f64> {
    // serde_json has checked the syntax, so a value that begins like a number is one; Rust reads all of JSON's.
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()).then(|| raw.parse().ok()).flatten()
}

/// A JSON string's text, borrowed where it has no escapes; `None` for any other type or half a surrogate pair.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// A member's key.
#[derive(Debug, PartialEq)]
enum Key {
    Field(Field),
    Uuid,
    Unknown(String),
}

impl Key {
    fn name(&self) -> &str {
        match self {
            Self::Field(field) => field.name(),
            Self::Uuid => "uuid",
            Self::Unknown(name) => name,
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(match Field::from_name(name) {
                    Some(field) => Key::Field(field),
                    None if name == "uuid" => Key::Uuid,
                    None => Key::Unknown(name.to_owned()),
                })
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The members of the top-level object, and the keys that came more than once.
struct Members<'a>(Vec<(Key, &'a RawValue)>, Vec<Key>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(Key, &RawValue)> = Vec::with_capacity(Field::ALL.len());
                let mut repeated = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key, &RawValue>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    if !members.iter().any(|(known, _)| *known == key) {
                        members.push((key, value));
                    } else if !repeated.contains(&key) {
                        repeated.push(key);
                    }
                }
                Ok(Members(members, repeated))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Members are compared pairwise, so their number is bounded: a body of 1 MiB could hold 200,000 of them.
const MEMBERS_MAX: usize = 100;

fn members(body: &[u8]) -> Result<Members<'_>, Problem> {
    let not_json = |detail: String| Err(Problem::new(Code::InvalidJson, detail));
    if body.iter().all(u8::is_ascii_whitespace) {
        return not_json("the body is empty; send a JSON object".to_owned());
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            return not_json(format!("the body is not UTF-8 at byte {}; encode it as UTF-8", error.valid_up_to()));
        }
    };
    serde_json::from_str(text).or_else(|error| match error.classify() {
        Category::Data => Err(Problem::fields(vec![FieldError {
            pointer: String::new(),
            detail: format!("must be one JSON object with the fields {}", known_fields()).into(),
        }])),
        _ => not_json(format!(
            "the body is not valid JSON at line {} column {}; correct it and send it again",
            error.line(),
            error.column()
        )),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::arbitrary;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_as_json_is_read_back_the_same(passenger in arbitrary::passenger()) {
            let body = serde_json::to_vec(&passenger).expect("serialised");
            let read = read(&body, UuidRule::Equals(passenger.uuid)).map_err(|problem| {
                TestCaseError::fail(format!("{problem:?}"))
            })?;
            prop_assert_eq!(read, passenger.details);
        }
    }
}
