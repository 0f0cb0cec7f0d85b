//! Some fields of a passenger, to be set: a JSON Merge Patch (RFC 7396) that has been read. No I/O happens here.
//!
//! A null removes a member, and the one that a passenger can be without is the age. What is not named stays.

use std::borrow::Cow;

use super::model::{Details, Sex};

/// What to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergePatch<'a> {
    /// Whether the passenger survived.
    pub survived: Option<bool>,
    /// 1, 2 or 3.
    pub passenger_class: Option<i16>,
    /// The name.
    pub name: Option<Cow<'a, str>>,
    /// The sex.
    pub sex: Option<Sex>,
    /// The age, or that it is unknown.
    pub age: Option<Option<f64>>,
    /// Not negative.
    pub siblings_or_spouses_aboard: Option<i32>,
    /// Not negative.
    pub parents_or_children_aboard: Option<i32>,
    /// Not negative.
    pub fare: Option<f64>,
}

impl<'a> MergePatch<'a> {
    /// A whole passenger, when every field is set.
    pub fn into_details(self) -> Option<Details<'a>> {
        Some(Details {
            survived: self.survived?,
            passenger_class: self.passenger_class?,
            name: self.name?,
            sex: self.sex?,
            age: self.age?,
            siblings_or_spouses_aboard: self.siblings_or_spouses_aboard?,
            parents_or_children_aboard: self.parents_or_children_aboard?,
            fare: self.fare?,
        })
    }

    /// The same without borrowing, to outlive the request's body.
    pub fn into_owned(self) -> MergePatch<'static> {
        MergePatch { name: self.name.map(|name| Cow::Owned(name.into_owned())), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::super::json::{UuidRule, read, read_patch};
    use super::super::model::{Field, arbitrary};
    use super::*;

    /// RFC 7396, section 2, for documents without objects inside.
    fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                target.insert(name.clone(), value.clone());
            }
        }
    }

    /// What the database makes of a row and a patch.
    fn applied<'a>(details: Details<'a>, patch: MergePatch<'a>) -> Details<'a> {
        Details {
            survived: patch.survived.unwrap_or(details.survived),
            passenger_class: patch.passenger_class.unwrap_or(details.passenger_class),
            name: patch.name.unwrap_or(details.name),
            sex: patch.sex.unwrap_or(details.sex),
            age: patch.age.unwrap_or(details.age),
            siblings_or_spouses_aboard: patch.siblings_or_spouses_aboard.unwrap_or(details.siblings_or_spouses_aboard),
            parents_or_children_aboard: patch.parents_or_children_aboard.unwrap_or(details.parents_or_children_aboard),
            fare: patch.fare.unwrap_or(details.fare),
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    /// A value that is right for some field, and wrong for others.
    fn value() -> impl Strategy<Value = Value> {
        let fixed = [json!(null), json!("male"), json!("x"), json!(""), json!(1), json!(2.5), json!(-1), json!(true)];
        prop_oneof![prop::sample::select(fixed.to_vec()), any::<f64>().prop_map(|number| json!(number))]
    }

    proptest! {
        #[test]
        fn a_patch_does_what_the_rfc_says_or_is_refused(
            passenger in arbitrary::passenger(),
            patch in prop::collection::vec((prop::sample::select(Field::ALL.to_vec()), value()), 0..5),
        ) {
            let patch: Map<String, Value> =
                patch.into_iter().map(|(field, value)| (field.name().to_owned(), value)).collect();
            let mut merged = object(serde_json::to_value(&passenger.details).expect("serialised"));
            merge(&mut merged, &patch);
            // Without an age it is unknown, which a whole document says by null.
            merged.entry("age").or_insert(Value::Null);
            let merged = serde_json::to_vec(&merged).expect("serialised");
            let expected = read(&merged, UuidRule::Refused);
            let body = serde_json::to_vec(&patch).expect("serialised");
            let patch = read_patch(&body, UuidRule::Refused);
            match (patch, expected) {
                (Ok(patch), Ok(expected)) => prop_assert_eq!(applied(passenger.details, patch), expected),
                (Err(_), Err(_)) => {}
                (patch, expected) => prop_assert!(false, "{:?} but {:?}", patch, expected),
            }
        }
    }
}
