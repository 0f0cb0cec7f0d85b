//! A passenger and the rules each of its fields must satisfy. No I/O happens here.
//!
//! JSON bodies and CSV rows are judged by the same functions, so no way in is laxer than another, and the table's
//! constraints repeat them as a last line of defence.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::problem::FieldError;

/// Longest name, in characters.
pub const NAME_MAX_CHARS: usize = 150;
/// Greatest age, in years.
pub const AGE_MAX: f64 = 130.0;

/// A passenger as it is stored and shown; the order of the fields is the order of the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Passenger<'a> {
    /// The key, version 7.
    pub uuid: Uuid,
    /// What anybody may set.
    #[serde(flatten)]
    pub details: Details<'a>,
}

/// Everything of a passenger but its key: what a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PassengerDetails)]
pub struct Details<'a> {
    /// Whether the passenger survived.
    pub survived: bool,
    /// 1, 2 or 3.
    #[schema(minimum = 1, maximum = 3)]
    pub passenger_class: i16,
    /// 1 to 150 characters, without U+0000.
    #[schema(min_length = 1, max_length = 150, pattern = r"^[^\x00]+$")]
    pub name: Cow<'a, str>,
    /// `male` or `female`.
    pub sex: Sex,
    /// Years; null when unknown.
    #[schema(minimum = 0, maximum = 130, required = true)]
    pub age: Option<f64>,
    /// Not negative.
    #[schema(minimum = 0, maximum = 2147483647)]
    pub siblings_or_spouses_aboard: i32,
    /// Not negative.
    #[schema(minimum = 0, maximum = 2147483647)]
    pub parents_or_children_aboard: i32,
    /// Pounds, not negative.
    #[schema(minimum = 0)]
    pub fare: f64,
}

impl Passenger<'_> {
    /// About as many bytes as a passenger takes as JSON: room for a name longer than most.
    pub const JSON_BYTES: usize = 256;

    /// Appends the passenger as JSON, the same as its `Serialize`: written out, because it is half the cost of a list.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self { uuid, details } = self;
        out.extend_from_slice(b"{\"uuid\":\"");
        out.extend_from_slice(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        out.extend_from_slice(if details.survived { &b"\",\"survived\":true"[..] } else { b"\",\"survived\":false" });
        write_value(out, b",\"passengerClass\":", &details.passenger_class);
        write_value(out, b",\"name\":", &details.name);
        out.extend_from_slice(match details.sex {
            Sex::Male => &b",\"sex\":\"male\""[..],
            Sex::Female => b",\"sex\":\"female\"",
        });
        write_value(out, b",\"age\":", &details.age);
        write_value(out, b",\"siblingsOrSpousesAboard\":", &details.siblings_or_spouses_aboard);
        write_value(out, b",\"parentsOrChildrenAboard\":", &details.parents_or_children_aboard);
        write_value(out, b",\"fare\":", &details.fare);
        out.push(b'}');
    }
}

/// Appends a key with its punctuation, and a value.
fn write_value(out: &mut Vec<u8>, key: &[u8], value: &impl Serialize) {
    out.extend_from_slice(key);
    serde_json::to_writer(out, value).expect("a vector takes everything");
}

impl Details<'_> {
    /// The same without borrowing, to outlive the request's body.
    pub fn into_owned(self) -> Details<'static> {
        Details { name: Cow::Owned(self.name.into_owned()), ..self }
    }
}

/// The sexes the passenger list knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sex {
    /// Male.
    Male,
    /// Female.
    Female,
}

impl Sex {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Male => "male",
            Self::Female => "female",
        }
    }
}

/// The fields a client sets, in key order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `survived`
    Survived,
    /// `passengerClass`
    PassengerClass,
    /// `name`
    Name,
    /// `sex`
    Sex,
    /// `age`
    Age,
    /// `siblingsOrSpousesAboard`
    SiblingsOrSpousesAboard,
    /// `parentsOrChildrenAboard`
    ParentsOrChildrenAboard,
    /// `fare`
    Fare,
}

impl Field {
    /// Every field, in key order.
    pub const ALL: [Self; 8] = [
        Self::Survived,
        Self::PassengerClass,
        Self::Name,
        Self::Sex,
        Self::Age,
        Self::SiblingsOrSpousesAboard,
        Self::ParentsOrChildrenAboard,
        Self::Fare,
    ];

    /// The JSON key and CSV column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Survived => "survived",
            Self::PassengerClass => "passengerClass",
            Self::Name => "name",
            Self::Sex => "sex",
            Self::Age => "age",
            Self::SiblingsOrSpousesAboard => "siblingsOrSpousesAboard",
            Self::ParentsOrChildrenAboard => "parentsOrChildrenAboard",
            Self::Fare => "fare",
        }
    }

    /// The field a JSON key or CSV column names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// What a value must be; the text of every complaint about the field.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Survived => "must be true or false",
            Self::PassengerClass => "must be 1, 2 or 3",
            Self::Name => "must be a text of 1 to 150 characters without U+0000",
            Self::Sex => "must be \"male\" or \"female\"",
            Self::Age => "must be between 0 and 130, or null",
            Self::SiblingsOrSpousesAboard | Self::ParentsOrChildrenAboard => {
                "must be a whole number between 0 and 2147483647"
            }
            Self::Fare => "must be a number not below 0",
        }
    }

    /// The complaint about this field.
    pub fn error(self) -> FieldError {
        FieldError::new(self.name(), self.rule())
    }
}

/// A class, if it is one.
pub fn check_class(value: f64) -> Option<i16> {
    [1_i16, 2, 3].into_iter().find(|class| f64::from(*class) == value)
}

/// A name, if it can be stored: PostgreSQL's text cannot hold U+0000.
pub fn check_name(value: &str) -> Option<&str> {
    // Bytes first: no text of at most that many bytes has too many characters, so most names are not counted.
    let short = value.len() <= NAME_MAX_CHARS || value.chars().count() <= NAME_MAX_CHARS;
    (short && !value.is_empty() && !value.contains('\0')).then_some(value)
}

/// A sex, if the text names one.
pub fn check_sex(value: &str) -> Option<Sex> {
    [Sex::Male, Sex::Female].into_iter().find(|sex| sex.as_str() == value)
}

/// An age in years, if it is possible.
pub fn check_age(value: f64) -> Option<f64> {
    (0.0..=AGE_MAX).contains(&value).then_some(value + 0.0) // adding zero makes -0 plain 0
}

/// A count of relatives, if it is one.
pub fn check_count(value: f64) -> Option<i32> {
    let whole = value.trunc() == value && (0.0..=f64::from(i32::MAX)).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "the line above made sure that it fits")]
    whole.then_some(value as i32)
}

/// A fare, if it is one; NaN and infinity are none.
pub fn check_fare(value: f64) -> Option<f64> {
    (value >= 0.0 && value.is_finite()).then_some(value + 0.0)
}

/// The field that a constraint of the table guards; constraints are named `passengers_<column>`.
pub fn constraint_field(constraint: &str) -> Option<FieldError> {
    let column = constraint.strip_prefix("passengers_")?;
    let field = match column {
        "passenger_class" => Field::PassengerClass,
        "name" => Field::Name,
        "sex" => Field::Sex,
        "age" => Field::Age,
        "siblings_or_spouses_aboard" => Field::SiblingsOrSpousesAboard,
        "parents_or_children_aboard" => Field::ParentsOrChildrenAboard,
        "fare" => Field::Fare,
        _ => return None,
    };
    Some(field.error())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::arbitrary;

    proptest! {
        #[test]
        fn the_hand_written_json_is_the_derived_one(passenger in arbitrary::passenger()) {
            let mut written = Vec::new();
            passenger.write_json(&mut written);
            prop_assert_eq!(written, serde_json::to_vec(&passenger).expect("serialised"));
        }
    }
}

/// Any passenger that breaks no rule, for property tests.
#[cfg(test)]
pub mod arbitrary {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{AGE_MAX, Details, Passenger, Sex};

    /// A passenger with a random key, and texts that need quoting and escaping.
    pub fn passenger() -> impl Strategy<Value = Passenger<'static>> {
        let name = "[^\u{0}]{1,150}";
        let sex = prop_oneof![Just(Sex::Male), Just(Sex::Female)];
        let age = prop::option::of(0.0..=AGE_MAX);
        let fare = prop_oneof![0.0..1000.0, any::<f64>().prop_map(f64::abs).prop_filter("finite", |f| f.is_finite())];
        let key = any::<u128>().prop_map(Uuid::from_u128);
        (key, any::<bool>(), 1..=3_i16, name, sex, age, 0..=i32::MAX, 0..=i32::MAX, fare).prop_map(
            |(uuid, survived, passenger_class, name, sex, age, siblings, parents, fare)| Passenger {
                uuid,
                details: Details {
                    survived,
                    passenger_class,
                    name: name.into(),
                    sex,
                    age,
                    siblings_or_spouses_aboard: siblings,
                    parents_or_children_aboard: parents,
                    fare,
                },
            },
        )
    }
}
