//! Documentation examples for columns whose description has none.

use serde_json::Value;

use super::column::Column;
use super::kind::Kind;

/// The example key.
pub const UUID: &str = "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10";

/// A value that satisfies the column's rules, except possibly a pattern.
pub fn example(column: &Column) -> Value {
    match &column.kind {
        Kind::Boolean => true.into(),
        Kind::Integer { values: Some(values), .. } => values.first().copied().into(),
        Kind::Integer { minimum, maximum, .. } => 1.clamp(*minimum, *maximum).into(),
        Kind::Number { minimum, maximum } => {
            1.5_f64.max(minimum.unwrap_or(f64::MIN)).min(maximum.unwrap_or(f64::MAX)).into()
        }
        Kind::Decimal { scale, minimum, .. } => match minimum {
            Some(minimum) => minimum.clone().into(),
            None if *scale == 0 => "0".into(),
            None => format!("0.{}", "0".repeat(usize::from(*scale))).into(),
        },
        Kind::Text { min_length, max_length, .. } => {
            let text: String = "Example".chars().take(*max_length as usize).collect();
            format!("{text:x<width$}", width = *min_length as usize).into()
        }
        Kind::Enum(texts) => texts.first().cloned().into(),
        Kind::Date => "2026-01-31".into(),
        Kind::DateTime => "2026-01-31T12:00:00.000000Z".into(),
        Kind::Uuid => UUID.into(),
    }
}
