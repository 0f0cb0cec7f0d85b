//! What a value must be: the text of every validation error.

use super::decimal::PRECISION_MAX;
use super::kind::Kind;

/// Where a rule is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// In JSON.
    Json,
    /// In CSV.
    Csv,
}

/// What a value of this type must be.
pub fn rule(kind: &Kind, syntax: Syntax) -> String {
    match kind {
        Kind::Boolean if syntax == Syntax::Csv => "must be true, false, yes, no, on, off, 1 or 0".to_owned(),
        Kind::Boolean => "must be true or false".to_owned(),
        Kind::Integer { values: Some(values), .. } => {
            format!("must be {}", either(values.iter().map(ToString::to_string).collect()))
        }
        Kind::Integer { minimum, maximum, .. } => format!("must be a whole number between {minimum} and {maximum}"),
        Kind::Number { minimum, maximum } => {
            let bounds = (minimum.map(|bound| bound.to_string()), maximum.map(|bound| bound.to_string()));
            numbers("a number", bounds)
        }
        Kind::Decimal { precision, scale, minimum, maximum } => {
            let what = format!("a decimal of at most {precision} digits, {scale} of them after the point");
            match (minimum, maximum) {
                (None, None) => format!("must be {what}"),
                (minimum, maximum) => {
                    let bounds = numbers("", (minimum.clone(), maximum.clone()));
                    format!("must be {what}, {}", bounds.trim_start_matches("must be").trim_start())
                }
            }
        }
        Kind::Text { min_length, max_length, pattern } => {
            let matching = pattern.as_ref().map(|pattern| format!(" that matches {pattern}")).unwrap_or_default();
            format!("must be a text of {min_length} to {max_length} characters without U+0000{matching}")
        }
        Kind::Enum(texts) => {
            let shown = |text: &String| if syntax == Syntax::Json { format!("{text:?}") } else { text.clone() };
            format!("must be {}", either(texts.iter().map(shown).collect()))
        }
        Kind::Date => "must be a date such as 2026-01-31".to_owned(),
        Kind::DateTime => {
            "must be a date and time with an offset from UTC or a time zone, such as 2026-01-31T12:00:00Z".to_owned()
        }
        Kind::Uuid => "must be a uuid".to_owned(),
    }
}

fn numbers(what: &str, bounds: (Option<String>, Option<String>)) -> String {
    match bounds {
        (Some(minimum), Some(maximum)) => format!("must be between {minimum} and {maximum}"),
        (Some(minimum), None) => format!("must be {what} not below {minimum}"),
        (None, Some(maximum)) => format!("must be {what} not above {maximum}"),
        (None, None) => format!("must be {what}"),
    }
}

/// What a value of this type must be in a filter.
pub fn filter_rule(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer { .. } => "a whole number of 64 bits".to_owned(),
        Kind::Number { .. } => "a number".to_owned(),
        Kind::Decimal { scale, .. } => {
            format!("a decimal of at most {PRECISION_MAX} digits, at most {scale} of them after the point")
        }
        Kind::Text { .. } => "a text without U+0000".to_owned(),
        Kind::Enum(texts) => either(texts.clone()),
        Kind::Date => "a date such as 2026-01-31".to_owned(),
        Kind::DateTime => "a date and time such as 2026-01-31T12:00:00Z or 2026-01-31".to_owned(),
        Kind::Uuid => "a uuid".to_owned(),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub fn either(mut texts: Vec<String>) -> String {
    let last = texts.pop().unwrap_or_default();
    if texts.is_empty() { last } else { format!("{} or {last}", texts.join(", ")) }
}
