//! Reads a passenger out of a JSON body and finds every fault in it, not only the first.
//!
//! `http::json` splits the object into its members; here every field is judged on its own. What the server makes, the
//! uuid, is never taken from here.

use std::borrow::Cow;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::model::{Details, Field, check_age, check_class, check_count, check_fare, check_name, check_sex};
use crate::http::json::{members, text};
use crate::http::problem::{FieldError, Problem};

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
    let members = members(body, known_fields)?;
    let mut errors = Vec::new();
    let mut fields = Fields::default();
    for (name, value) in &members.values {
        match Field::from_name(name) {
            Some(field) => fields.put(field, value, &mut errors),
            None if name == "uuid" => check_uuid(value, uuid, &mut errors),
            None => errors.push(FieldError::new(name, format!("is unknown; the fields are {}", known_fields()))),
        }
    }
    for name in &members.repeated {
        errors.push(FieldError::new(name, "stands in the body more than once; keep one"));
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
