//! Reads a passenger out of a JSON body and finds every fault in it, not only the first.
//!
//! `http::json` splits the object into its members; here every field is judged on its own. What the server makes, the
//! uuid, is never taken from here.

use std::borrow::Cow;

use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::model::{Details, Field, check_age, check_class, check_count, check_fare, check_name, check_sex};
use super::patch::MergePatch;
use crate::http::json::{Members, members, text};
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
    Fields::read(&members(body, known_fields)?, uuid).whole().map_err(Problem::fields)
}

/// Reads one passenger of many; whatever is wrong is a fault of this row.
///
/// # Errors
/// Everything that is wrong.
pub fn read_row(row: &[u8]) -> Result<Details<'_>, Vec<FieldError>> {
    let fault = |detail: String| vec![FieldError { pointer: String::new(), detail: detail.into() }];
    let text = std::str::from_utf8(row).map_err(|_| fault("must be UTF-8".to_owned()))?;
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => fault(format!("must be a JSON object with the fields {}", known_fields())),
        _ => fault("must be valid JSON".to_owned()),
    })?;
    Fields::read(&members, UuidRule::Refused).whole()
}

/// Reads a merge patch: any of a passenger's fields.
///
/// # Errors
/// As [`read`].
pub fn read_patch(body: &[u8], uuid: UuidRule) -> Result<MergePatch<'_>, Problem> {
    Fields::read(&members(body, known_fields)?, uuid).finish().map_err(Problem::fields)
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
    values: MergePatch<'a>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    fn read(members: &Members<'a>, uuid: UuidRule) -> Self {
        let mut fields = Self::default();
        for (name, value) in &members.values {
            match Field::from_name(name) {
                Some(field) => fields.put(field, value),
                None if name == "uuid" => check_uuid(value, uuid, &mut fields.errors),
                None => {
                    fields.errors.push(FieldError::new(name, format!("is unknown; the fields are {}", known_fields())));
                }
            }
        }
        for name in &members.repeated {
            fields.errors.push(FieldError::new(name, "stands in the body more than once; keep one"));
        }
        fields
    }

    fn put(&mut self, field: Field, value: &'a RawValue) {
        self.seen[field as usize] = true;
        let raw = value.get();
        let values = &mut self.values;
        let taken = match field {
            Field::Survived => store(&mut values.survived, raw.parse().ok()),
            Field::PassengerClass => store(&mut values.passenger_class, number(raw).and_then(check_class)),
            Field::Name => store(&mut values.name, text(raw).filter(|name| check_name(name).is_some())),
            Field::Sex => store(&mut values.sex, text(raw).and_then(|sex| check_sex(&sex))),
            Field::Age if raw == "null" => store(&mut values.age, Some(None)),
            Field::Age => store(&mut values.age, number(raw).and_then(check_age).map(Some)),
            Field::SiblingsOrSpousesAboard => {
                store(&mut values.siblings_or_spouses_aboard, number(raw).and_then(check_count))
            }
            Field::ParentsOrChildrenAboard => {
                store(&mut values.parents_or_children_aboard, number(raw).and_then(check_count))
            }
            Field::Fare => store(&mut values.fare, number(raw).and_then(check_fare)),
        };
        if !taken {
            self.errors.push(field.error());
        }
    }

    fn finish(self) -> Result<MergePatch<'a>, Vec<FieldError>> {
        if self.errors.is_empty() { Ok(self.values) } else { Err(self.errors) }
    }

    fn whole(mut self) -> Result<Details<'a>, Vec<FieldError>> {
        for field in Field::ALL {
            if !self.seen[field as usize] {
                self.errors.push(FieldError::new(field.name(), format!("is missing; it {}", field.rule())));
            }
        }
        // No field is missing and none was wrong, so each has its value.
        self.finish().map(|values| values.into_details().expect("every field was seen and none failed"))
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
