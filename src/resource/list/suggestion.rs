//! Suggestions for a condition that cannot be parsed: operators of other grammars, symbols, quotes, brackets, and
//! regular expressions, ranges, and human-readable values. A suggestion is made only if it parses itself.

use super::super::column::Column;
use super::super::column::cell::is_null_word;
use super::super::kind::Kind;
use crate::http::query::suggestion::{SIGNS, condition};

/// Operators other than comparisons, supported or not: a text that begins with one is not a value.
pub const OTHERS: [&str; 11] = ["like", "ilike", "in", "is", "not", "match", "imatch", "fts", "plfts", "phfts", "wfts"];

/// Operators of regular expressions, and the operator of the equivalent pattern.
const REGULAR: [(&str, &str); 6] = [
    ("match", "like"),
    ("regex", "like"),
    ("regexp", "like"),
    ("imatch", "ilike"),
    ("iregex", "ilike"),
    ("iregexp", "ilike"),
];

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
    if let Some(operator) = REGULAR.iter().find(|(name, _)| *name == word).map(|(_, operator)| operator) {
        let condition = format!("{operator}.{}", pattern_of(rest.get(1..)?)?);
        return Some(condition).filter(|condition| column.is_text() && reads(condition));
    }
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

/// The parameter, or in a group the condition, that replaces a condition for which more than one is needed: `between.1,2`,
/// `1..5`, `isdistinct.30`, `like(any).{a*,b*}`.
pub fn suggest_several(
    column: &Column,
    negated: bool,
    in_group: bool,
    text: &str,
    reads: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let name = column.name;
    let join = |word: &str, conditions: Vec<String>| {
        conditions.iter().all(|condition| reads(condition)).then_some(())?;
        let between = if word == "and" && !in_group { "=" } else { "." };
        let parts: Vec<String> = conditions.iter().map(|one| format!("{name}{between}{one}")).collect();
        Some(match (in_group, word) {
            (true, _) => format!("{word}({})", parts.join(",")),
            (false, "and") => parts.join("&"),
            (false, _) => format!("{word}=({})", parts.join(",")),
        })
    };
    if let Some((low, high)) = range(text, column.is_text()) {
        return if negated {
            join("or", vec![format!("lt.{low}"), format!("gt.{high}")])
        } else {
            join("and", vec![format!("gte.{low}"), format!("lte.{high}")])
        };
    }
    if let Some(value) = text.strip_prefix("isdistinct.").filter(|_| !negated) {
        return join("or", vec![format!("neq.{value}"), "is.null".to_owned()]);
    }
    let (operator, list) = text.split_once("(any).").filter(|_| !negated)?;
    let values = list.trim_matches(['{', '}', '(', ')']).split(',').map(str::trim);
    join("or", values.map(|value| format!("{operator}.{value}")).collect())
}

/// The bounds of `between.1,2`, `between 1 and 2`, `1..5`, `[1,5]` and `[1 TO 5]`.
fn range(text: &str, is_text: bool) -> Option<(&str, &str)> {
    let text = text.trim();
    let is_mark = |letter: char| " .:=(".contains(letter);
    let named = ["between", "btw", "range"].iter().find_map(|word| {
        let begun = text.get(..word.len()).filter(|begun| begun.eq_ignore_ascii_case(word))?;
        text[begun.len()..].strip_prefix(is_mark)
    });
    // A text may contain dots and brackets itself.
    if named.is_none() && is_text {
        return None;
    }
    let is_bracketed = text.starts_with('[') && text.ends_with(']');
    let inner = named.unwrap_or(text).trim_matches(['(', ')', '[', ']', ' ']);
    let marks: &[&str] = if named.is_some() || is_bracketed {
        &["...", "..", ",", ";", " and ", " AND ", ".and.", " to ", " TO "]
    } else {
        &["...", ".."]
    };
    let (low, high) = marks.iter().find_map(|mark| inner.split_once(mark))?;
    let (low, high) = (low.trim(), high.trim());
    (!low.is_empty() && !high.is_empty()).then_some((low, high))
}

/// The pattern of `like` that is equivalent to a regular expression without alternatives, repetitions and classes.
fn pattern_of(expression: &str) -> Option<String> {
    let rest = expression.strip_prefix('^');
    let is_open = rest.is_none() && !expression.starts_with(".*");
    let mut pattern = if is_open { "*".to_owned() } else { String::new() };
    let mut letters = rest.unwrap_or(expression).chars().peekable();
    let mut is_ended = false;
    while let Some(letter) = letters.next() {
        match letter {
            '$' if letters.peek().is_none() => is_ended = true,
            '.' if letters.next_if_eq(&'*').is_some() => pattern.push('*'),
            '.' => pattern.push('_'),
            '\\' => match letters.next()? {
                escaped if escaped.is_alphanumeric() => return None,
                escaped @ ('*' | '\\') => pattern.extend(['\\', escaped]),
                escaped => pattern.push(escaped),
            },
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            '%' | '_' => pattern.extend(['\\', letter]),
            plain => pattern.push(plain),
        }
    }
    if !is_ended && !expression.ends_with(".*") {
        pattern.push('*');
    }
    Some(pattern)
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
