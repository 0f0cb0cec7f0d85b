//! The columns that a list may be filtered by, ordered by and reduced to, and the values they hold.
//!
//! This is the whitelist: what the client writes is looked up here, and only constants of this file reach the SQL.

use std::fmt;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::model::{Field, Passenger, Sex, check_sex};

/// A column of a list: the key, or a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// `uuid`
    Uuid,
    /// Any other.
    Field(Field),
}

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key.
    Uuid,
    /// True or false.
    Bool,
    /// A whole number.
    Whole,
    /// A double.
    Number,
    /// A text.
    Text,
}

/// A value to compare a column with.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// For the key.
    Uuid(Uuid),
    /// For `survived`.
    Bool(bool),
    /// For class and counts.
    Whole(i64),
    /// For age and fare; finite.
    Number(f64),
    /// For name and sex; without U+0000.
    Text(String),
}

impl Column {
    /// Every column, in the order of a passenger's keys.
    pub const ALL: [Self; 1 + Field::ALL.len()] = {
        let mut all = [Self::Uuid; 1 + Field::ALL.len()];
        let mut index = 0;
        while index < Field::ALL.len() {
            all[index + 1] = Self::Field(Field::ALL[index]);
            index += 1;
        }
        all
    };

    /// The name that clients use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Field(field) => field.name(),
        }
    }

    /// The column of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uuid" { Some(Self::Uuid) } else { Field::from_name(name).map(Self::Field) }
    }

    /// All names, for complaints.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The column in a comparison or an order: texts by code point, so that every machine agrees on what comes first.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Field(Field::Name) => "name collate \"C\"",
            Self::Field(Field::Sex) => "sex collate \"C\"",
            other => other.plain_sql(),
        }
    }

    /// The column itself; patterns use it, because the database's own collation knows upper and lower case.
    pub fn plain_sql(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Field(Field::Survived) => "survived",
            Self::Field(Field::PassengerClass) => "passenger_class",
            Self::Field(Field::Name) => "name",
            Self::Field(Field::Sex) => "sex",
            Self::Field(Field::Age) => "age",
            Self::Field(Field::SiblingsOrSpousesAboard) => "siblings_or_spouses_aboard",
            Self::Field(Field::ParentsOrChildrenAboard) => "parents_or_children_aboard",
            Self::Field(Field::Fare) => "fare",
        }
    }

    /// What its values are.
    pub fn kind(self) -> Kind {
        match self {
            Self::Uuid => Kind::Uuid,
            Self::Field(Field::Survived) => Kind::Bool,
            Self::Field(Field::Name | Field::Sex) => Kind::Text,
            Self::Field(Field::Age | Field::Fare) => Kind::Number,
            Self::Field(Field::PassengerClass | Field::SiblingsOrSpousesAboard | Field::ParentsOrChildrenAboard) => {
                Kind::Whole
            }
        }
    }

    /// Whether it may be null.
    pub fn is_nullable(self) -> bool {
        self == Self::Field(Field::Age)
    }

    /// Every value it can hold, ascending, when they are few.
    pub fn domain(self) -> Option<Vec<Value>> {
        match self {
            Self::Field(Field::Survived) => Some([false, true].map(Value::Bool).into()),
            Self::Field(Field::PassengerClass) => Some([1, 2, 3].map(Value::Whole).into()),
            Self::Field(Field::Sex) => {
                Some([Sex::Female, Sex::Male].map(|sex| Value::Text(sex.as_str().to_owned())).into())
            }
            _ => None,
        }
    }

    /// Reads a value to compare the column with.
    pub fn read(self, text: &str) -> Option<Value> {
        match self.kind() {
            Kind::Uuid => Uuid::try_parse(text).ok().map(Value::Uuid),
            Kind::Bool => text.parse().ok().map(Value::Bool),
            Kind::Whole => text.parse().ok().map(Value::Whole),
            Kind::Number => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Number),
            Kind::Text if self == Self::Field(Field::Sex) => {
                check_sex(text).map(|sex| Value::Text(sex.as_str().into()))
            }
            Kind::Text => (!text.contains('\0')).then(|| Value::Text(text.to_owned())),
        }
    }

    /// What a value must be, for complaints.
    pub fn rule(self) -> &'static str {
        match self.kind() {
            Kind::Uuid => "a uuid",
            Kind::Bool => "true or false",
            Kind::Whole => "a whole number",
            Kind::Number => "a number",
            Kind::Text if self == Self::Field(Field::Sex) => "male or female",
            Kind::Text => "a text without U+0000",
        }
    }

    /// The value in a passenger.
    pub fn of(self, passenger: &Passenger<'_>) -> Option<Value> {
        let details = &passenger.details;
        Some(match self {
            Self::Uuid => Value::Uuid(passenger.uuid),
            Self::Field(Field::Survived) => Value::Bool(details.survived),
            Self::Field(Field::PassengerClass) => Value::Whole(details.passenger_class.into()),
            Self::Field(Field::Name) => Value::Text(details.name.clone().into_owned()),
            Self::Field(Field::Sex) => Value::Text(details.sex.as_str().to_owned()),
            Self::Field(Field::Age) => Value::Number(details.age?),
            Self::Field(Field::SiblingsOrSpousesAboard) => Value::Whole(details.siblings_or_spouses_aboard.into()),
            Self::Field(Field::ParentsOrChildrenAboard) => Value::Whole(details.parents_or_children_aboard.into()),
            Self::Field(Field::Fare) => Value::Number(details.fare),
        })
    }
}

impl Value {
    /// The value and its type as a statement's parameter.
    pub fn param(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Uuid(value) => (value, Type::UUID),
            Self::Bool(value) => (value, Type::BOOL),
            Self::Whole(value) => (value, Type::INT8),
            Self::Number(value) => (value, Type::FLOAT8),
            Self::Text(value) => (value, Type::TEXT),
        }
    }
}

/// As [`Column::read`] takes it.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(value) => value.fmt(formatter),
            Self::Bool(value) => value.fmt(formatter),
            Self::Whole(value) => value.fmt(formatter),
            // The shortest text that reads back as the same number; `Display` would write 300 digits.
            Self::Number(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => formatter.write_str(value),
        }
    }
}
