//! Random descriptions and valid rows for property tests.

use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::column::Column;
use super::definition::Resource;
use super::kind::Kind;
use super::row::Record;
use super::value::Value;

#[path = "../../tests/support/descriptions.rs"]
mod descriptions;
use descriptions::description;

/// A random resource.
pub fn resource() -> impl Strategy<Value = &'static Resource> {
    description("things").prop_map(|text| {
        Resource::load(&text, |_| Err(String::new())).unwrap_or_else(|faults| panic!("{faults:?} in {text}"))
    })
}

/// A valid value of a column.
pub fn value(column: &'static Column) -> BoxedStrategy<Value<'static>> {
    let some: BoxedStrategy<Value<'static>> = match &column.kind {
        Kind::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Kind::Integer { values: Some(values), .. } => select(values.clone()).prop_map(Value::Integer).boxed(),
        Kind::Integer { minimum, maximum, .. } => (*minimum..=*maximum).prop_map(Value::Integer).boxed(),
        Kind::Number { minimum, maximum } => match (minimum, maximum) {
            (Some(minimum), Some(maximum)) => {
                (*minimum..=*maximum).prop_map(|value| Value::Number(value + 0.0)).boxed()
            }
            _ => {
                let least = minimum.unwrap_or(f64::MIN);
                let any = any::<f64>().prop_filter("finite", |value| value.is_finite());
                any.prop_map(move |value| Value::Number(if value < least { -value } else { value } + 0.0)).boxed()
            }
        },
        Kind::Decimal { precision, .. } => {
            let nines = "9".repeat(usize::from(*precision));
            let most: i128 = nines.parse().expect("digits");
            let text = (-most..=most).prop_map(|units| units.to_string());
            let scale = match column.kind {
                Kind::Decimal { scale, .. } => scale,
                _ => 0,
            };
            text.prop_map(move |units| {
                column.read_csv(&format!("{units}e-{scale}")).expect("it has no bounds").into_owned()
            })
            .boxed()
        }
        Kind::Text { pattern: Some(_), .. } => "[a-z]{1,19}[0-9]?".prop_map(|text| Value::Text(text.into())).boxed(),
        Kind::Text { min_length, max_length, .. } => {
            let text =
                prop::string::string_regex(&format!("[^\u{0}]{{{min_length},{max_length}}}")).expect("a pattern");
            text.prop_map(|text| Value::Text(text.into())).boxed()
        }
        Kind::Enum(texts) => select(texts.clone()).prop_map(|text| Value::Text(text.into())).boxed(),
        Kind::Date => {
            let days = -700_000_i32..2_900_000;
            days.prop_filter_map("four digits", |days| {
                super::value::date_of(days.to_be_bytes()).filter(|day| (1..=9999).contains(&day.year()))
            })
            .prop_map(Value::Date)
            .boxed()
        }
        Kind::DateTime => (-60_000_000_000_000_000_i64..250_000_000_000_000_000)
            .prop_filter_map("in range", |micros| super::value::timestamp_of(micros.to_be_bytes()))
            .prop_map(Value::DateTime)
            .boxed(),
        Kind::Uuid => any::<u128>().prop_map(|bits| Value::Uuid(Uuid::from_u128(bits))).boxed(),
    };
    if column.nullable { prop_oneof![1 => Just(Value::Null), 4 => some].boxed() } else { some }
}

/// A valid row.
pub fn record(resource: &'static Resource) -> impl Strategy<Value = Record<'static>> {
    let values: Vec<_> = resource.fields().iter().map(value).collect();
    (any::<u128>(), values).prop_map(|(key, values)| Record { uuid: Uuid::from_u128(key), values })
}

/// Rows that have many values in common.
pub fn similar_rows(resource: &'static Resource, most: usize) -> impl Strategy<Value = Vec<Record<'static>>> {
    let pool = prop::collection::vec(record(resource), 1..4);
    pool.prop_flat_map(move |pool| {
        let columns = resource.fields().len();
        let row = (any::<u128>(), prop::collection::vec(any::<prop::sample::Index>(), columns)).prop_map(
            move |(key, picks)| {
                let values =
                    picks.iter().enumerate().map(|(index, pick)| pick.get(&pool).values[index].clone()).collect();
                Record { uuid: Uuid::from_u128(key), values }
            },
        );
        prop::collection::vec(row, 1..most)
    })
}

impl Record<'static> {
    /// The value of a column.
    pub fn value(&self, column: &Column) -> Value<'static> {
        match column.position {
            0 => Value::Uuid(self.uuid),
            position => self.values[position - 1].clone(),
        }
    }
}
