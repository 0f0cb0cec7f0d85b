//! Suggestions for a condition that cannot be parsed: operators of other grammars, symbols, quotes, brackets, and
//! human-readable values. A suggestion is made only if it parses itself.

use super::super::column::Column;
use super::super::column::cell::is_null_word;
use super::super::kind::Kind;
use crate::http::query::suggestion::{SIGNS, condition};

/// The condition that was probably intended by this text, which is not one; `reads` states whether a text parses.
pub fn suggest(column: &Column, text: &str, reads: &dyn Fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    if let Some(reversed) = text.strip_prefix('!').filter(|rest| !rest.starts_with('=')) {
        let suggestion = suggest(column, reversed, reads)?;
        return Some(suggestion.strip_prefix("not.").map_or(format!("not.{suggestion}"), str::to_owned));
    }
    if let Some((value, operator)) =
        SIGNS.iter().find_map(|(sign, operator)| Some((text.strip_prefix(sign)?, operator)))
    {
        return first(column, &format!("{operator}.{{}}"), value, reads);
    }
    let plain: String = text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    match plain.as_str() {
        "isnull" | "null" => return Some("is.null".to_owned()),
        "notnull" | "isnotnull" | "nonnull" | "neqnull" | "nenull" => return Some("is.not_null".to_owned()),
        _ => {}
    }
    let end = text.find(['.', ':', '=', '(', '[', ' ', ',']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_start_matches(['-', '$']);
    let template = condition(word)?;
    let mut value = rest.get(1..).unwrap_or_default();
    if rest.starts_with(['(', '[']) {
        // `in(1,2)`; for other operators the meaning of parentheses is unknown.
        value = value.strip_suffix([')', ']']).filter(|_| template.contains("in."))?;
    }
    if value.trim().is_empty() {
        return example(column, template).filter(|example| reads(example));
    }
    first(column, template, value, reads)
}

/// The first condition that parses, with the value as it is or a suggested one.
fn first(column: &Column, template: &str, value: &str, reads: &dyn Fn(&str) -> bool) -> Option<String> {
    let value = value.trim();
    let lower = value.to_lowercase();
    let reversed = template.starts_with("neq") || template.starts_with("not.");
    if template == "is.{}" {
        let truth = match lower.as_str() {
            "not.null" | "notnull" | "not null" | "!null" => "not_null",
            "1" | "t" | "yes" | "y" | "on" => "true",
            "0" | "f" | "no" | "n" | "off" => "false",
            other if other == "empty" || other == "nil" || other == "undefined" || is_null_word(other) => "null",
            _ => return first(column, "eq.{}", value, reads),
        };
        return Some(format!("is.{truth}")).filter(|condition| reads(condition));
    }
    if is_null_word(value) && !column.is_text() {
        return Some(if reversed { "is.not_null" } else { "is.null" }.to_owned());
    }
    let inner = value.trim_matches(['(', ')', '[', ']', '{', '}']).trim();
    let unquoted = value.trim_matches(['"', '\'', '“', '”', '‘', '’']);
    let mut values = vec![value.to_owned(), inner.to_owned(), unquoted.to_owned()];
    values.extend(column.possible_spellings(value));
    if template.contains("in.") {
        values.push(inner.replace([';', '|'], ","));
    }
    let fill = |value: String| template.replace("{}", &value);
    values.into_iter().filter(|value| !value.is_empty()).map(fill).find(|condition| reads(condition))
}

/// A condition with this operator and some value of the column.
fn example(column: &Column, template: &str) -> Option<String> {
    let value = match &column.kind {
        Kind::Boolean => "true".to_owned(),
        Kind::Integer { values: Some(values), .. } => values.first()?.to_string(),
        Kind::Integer { .. } | Kind::Number { .. } => "30".to_owned(),
        Kind::Decimal { .. } => "12".to_owned(),
        Kind::Text { .. } => "Smith".to_owned(),
        Kind::Enum(texts) => texts.first()?.clone(),
        Kind::Date => "2026-01-31".to_owned(),
        Kind::DateTime => "2026-01-31T12:00:00Z".to_owned(),
        Kind::Uuid => "0192d3a0-0000-7000-8000-000000000000".to_owned(),
    };
    let value = if template == "is.{}" { "null" } else { &value };
    Some(template.replace("{}", value))
}
