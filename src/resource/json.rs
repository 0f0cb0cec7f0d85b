//! Reads a row out of a JSON body and finds every fault in it, not only the first.
//!
//! `http::json` splits the object into its members; here every value is judged by its column. What the server makes, the
//! key, is never taken from here.

use std::borrow::Cow;

use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::definition::Resource;
use super::row::Patch;
use super::value::Value;
use crate::csv::notes::Notes;
use crate::http::json::fault::{Position, syntax};
use crate::http::json::{MEMBERS_MAX, Members, has_too_many_members, members};
use crate::http::problem::{FieldError, Problem};

/// What the body may say about the key.
#[derive(Debug, Clone, Copy)]
pub enum UuidRule {
    /// The server makes it, so the body must not name one.
    Refused,
    /// It may be repeated when it equals the path's.
    Equals(Uuid),
}

/// Reads a whole row. With `left_out` unknown members are noted there.
///
/// # Errors
/// 400 when the body is no JSON, 422 with one entry per field at fault.
pub fn read<'a>(
    resource: &Resource,
    body: &'a [u8],
    uuid: UuidRule,
    left_out: Option<&mut Notes>,
) -> Result<Vec<Value<'a>>, Problem> {
    let members = members(body, || resource.field_names.to_owned())?;
    Fields::read(resource, &members, uuid, left_out).whole().map_err(Problem::fields)
}

/// Reads one row of many, which begins at a place of the body; whatever is wrong is a fault of this row. With `left_out` unknown members are noted there.
///
/// # Errors
/// Everything that is wrong.
pub fn read_row<'a>(
    resource: &Resource,
    (begin, row): (Position, &'a [u8]),
    left_out: Option<&mut Notes>,
) -> Result<Vec<Value<'a>>, Vec<FieldError>> {
    let fault = |detail: String| vec![FieldError { pointer: String::new(), detail: detail.into() }];
    let text = std::str::from_utf8(row).map_err(|error| {
        fault(format!("must be UTF-8, which it is not at {}", begin.after(&row[..error.valid_up_to()])))
    })?;
    let members = Members::parse(text, begin).map_err(|error| match error.classify() {
        Category::Data if has_too_many_members(&error) => fault(format!("must have at most {MEMBERS_MAX} members")),
        Category::Data => fault(format!("must be a JSON object with the fields {}", resource.field_names)),
        Category::Eof => fault("must be valid JSON; as a line of its own, each object is whole on its line".to_owned()),
        _ => fault(format!("must be valid JSON, which it is not {}", syntax(text, begin, &error))),
    })?;
    Fields::read(resource, &members, UuidRule::Refused, left_out).whole()
}

/// Reads a merge patch (RFC 7396): any of a row's fields. A null removes a member, which a column that may be null can
/// be without.
///
/// # Errors
/// As [`read`].
pub fn read_patch<'a>(resource: &Resource, body: &'a [u8], uuid: UuidRule) -> Result<Patch<'a>, Problem> {
    let members = members(body, || resource.field_names.to_owned())?;
    let fields = Fields::read(resource, &members, uuid, None);
    if fields.errors.is_empty() { Ok(fields.values) } else { Err(Problem::fields(fields.errors)) }
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

/// The values read so far.
struct Fields<'a, 'r> {
    resource: &'r Resource,
    /// Whether a field was present, right or wrong.
    seen: Vec<bool>,
    /// A field that was present and wrong stays empty and has its error already.
    values: Patch<'a>,
    errors: Vec<FieldError>,
}

impl<'a, 'r> Fields<'a, 'r> {
    fn read(resource: &'r Resource, members: &Members<'a>, uuid: UuidRule, mut left_out: Option<&mut Notes>) -> Self {
        let count = resource.fields().len();
        let mut fields = Self { resource, seen: vec![false; count], values: vec![None; count], errors: Vec::new() };
        for (name, value) in &members.values {
            match resource.field(name) {
                Some(column) => {
                    let place = column.position - 1;
                    fields.seen[place] = true;
                    fields.values[place] = column.read_json(value.get());
                    if fields.values[place].is_none() {
                        let error = match members.unpaired_surrogate(value) {
                            Some(half) => FieldError::new(name, format!("{}; {half}", column.rule)),
                            None => column.json_error(value.get()),
                        };
                        fields.errors.push(error);
                    }
                }
                None if name == "uuid" => check_uuid(value, uuid, &mut fields.errors),
                None => match &mut left_out {
                    Some(notes) => notes.left_out(name),
                    None => {
                        let detail = format!("is unknown; the fields are {}", resource.field_names);
                        fields.errors.push(FieldError::new(name, detail));
                    }
                },
            }
        }
        for name in &members.repeated {
            fields.errors.push(FieldError::new(name, "is a duplicate field; keep one"));
        }
        fields
    }

    fn whole(mut self) -> Result<Vec<Value<'a>>, Vec<FieldError>> {
        for (column, seen) in self.resource.fields().iter().zip(&self.seen) {
            if column.required && !seen {
                self.errors.push(FieldError::new(column.name, format!("is missing; it {}", column.rule)));
            }
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let values = self.values.into_iter().zip(self.resource.fields());
        Ok(values.map(|(value, column)| value.unwrap_or_else(|| column.default.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::super::arbitrary::{record, resource};
    use super::super::registry::passengers;
    use super::super::row::Record;
    use super::*;

    /// The members of an object as they are written: reading a double may round it.
    type Object = BTreeMap<String, Box<RawValue>>;

    /// RFC 7396, section 2, for documents without objects inside.
    fn merge(target: &mut Object, patch: &Object) {
        for (name, value) in patch {
            if value.get() == "null" {
                target.remove(name);
            } else {
                target.insert(name.clone(), value.clone());
            }
        }
    }

    fn object(resource: &Resource, record: &Record<'_>) -> Object {
        let mut object: Object = serde_json::from_slice(&record.document(resource)).expect("JSON");
        object.remove("uuid");
        object
    }

    /// A value that is right for some field, and wrong for others.
    fn value() -> impl Strategy<Value = Json> {
        let fixed = [json!(null), json!("male"), json!("x"), json!(""), json!(1), json!(2.5), json!(-1), json!(true)];
        prop_oneof![prop::sample::select(fixed.to_vec()), any::<f64>().prop_map(|number| json!(number))]
    }

    proptest! {
        #[test]
        fn what_is_written_as_json_is_read_back_the_same(
            (resource, record) in resource().prop_flat_map(|resource| (Just(resource), record(resource))),
        ) {
            let body = record.document(resource);
            let read = read(resource, &body, UuidRule::Equals(record.uuid), None);
            let read = read.map_err(|problem| TestCaseError::fail(format!("{problem:?}")))?;
            prop_assert_eq!(read, record.values);
        }

        #[test]
        fn a_patch_does_what_the_rfc_says_or_is_refused(
            record in record(passengers()),
            patch in prop::collection::vec((prop::sample::select(passengers().fields().iter().collect::<Vec<_>>()), value()), 0..5),
        ) {
            let raw = |value: Json| RawValue::from_string(value.to_string()).expect("JSON");
            let patch: Object =
                patch.into_iter().map(|(column, value)| (column.name.to_owned(), raw(value))).collect();
            let mut merged = object(passengers(), &record);
            merge(&mut merged, &patch);
            // Without an age it is unknown, which a whole document says by null.
            merged.entry("age".to_owned()).or_insert_with(|| raw(Json::Null));
            let merged = serde_json::to_vec(&merged).expect("serialised");
            let expected = read(passengers(), &merged, UuidRule::Refused, None);
            let body = serde_json::to_vec(&patch).expect("serialised");
            match (read_patch(passengers(), &body, UuidRule::Refused), expected) {
                (Ok(patch), Ok(expected)) => {
                    let applied: Vec<_> =
                        record.values.iter().zip(patch).map(|(old, new)| new.unwrap_or_else(|| old.clone())).collect();
                    prop_assert_eq!(applied, expected);
                }
                (Err(_), Err(_)) => {}
                (patch, expected) => prop_assert!(false, "{:?} but {:?}", patch, expected),
            }
        }
    }
}
