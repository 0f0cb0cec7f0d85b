//! Parses a description: TOML with known keys and values of the right types. `check` validates the rules.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::check;
use super::description::{Description, Fault, line_at};

/// Parses the text of a description.
///
/// # Errors
/// All syntax and type errors; if the rest can be read, also the errors that `check` finds.
pub fn parse(text: &str) -> Result<Description, Vec<Fault>> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let fault = |error: &Error| {
        let message = error.message().trim().replace("expected u32", "expected a whole number, 0 or greater");
        let remedy = if message.starts_with("missing field") { "; add it" } else { "" };
        Fault { line: line_at(text, start(error)), message: format!("{message}{remedy}") }
    };
    if !errors.is_empty() {
        return Err(errors.iter().map(fault).collect());
    }
    let mut faults = Vec::new();
    // Deserialisation stops at the first error: the invalid item is removed, and the rest is read again.
    loop {
        match Description::deserialize(Deserializer::from(table.clone())) {
            Ok(description) if faults.is_empty() => return Ok(description),
            Ok(description) => {
                // If every column is invalid, all of them were removed.
                let has_columns = !description.column.is_empty();
                faults.extend(check::faults(text, &description).into_iter().filter(|_| has_columns));
                break;
            }
            Err(error) => {
                faults.push(fault(&error));
                let rest = error.span().and_then(|span| without(table.get_ref(), &span));
                // An error of the whole file, such as a missing field, leaves nothing to read.
                let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
                table = Spanned::new(table.span(), rest);
            }
        }
    }
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    Err(faults)
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// A table without the item that spans these bytes, or the smallest item that contains them; `None` if there is none.
fn without<'i>(table: &DeTable<'i>, span: &Range<usize>) -> Option<DeTable<'i>> {
    let mut rest = DeTable::new();
    let mut is_found = false;
    for (key, value) in table {
        match value_without(value, span) {
            Some(value) => {
                is_found = true;
                rest.insert(key.clone(), value);
            }
            None if holds(&key.span(), span) || holds(&value.span(), span) => is_found = true,
            None => drop(rest.insert(key.clone(), value.clone())),
        }
    }
    is_found.then_some(rest)
}

/// The same for a value that is or contains a table; other values are removed as a whole.
fn value_without<'i>(value: &Spanned<DeValue<'i>>, span: &Range<usize>) -> Option<Spanned<DeValue<'i>>> {
    let rest = match value.get_ref() {
        DeValue::Table(table) => DeValue::Table(without(table, span)?),
        DeValue::Array(values) => {
            let mut rest = DeArray::new();
            let mut is_found = false;
            for value in values {
                let is_table = matches!(value.get_ref(), DeValue::Table(_));
                match value_without(value, span) {
                    Some(value) => {
                        is_found = true;
                        rest.push(value);
                    }
                    None if is_table && holds(&value.span(), span) => is_found = true,
                    None => rest.push(value.clone()),
                }
            }
            DeValue::Array(is_found.then_some(rest)?)
        }
        _ => return None,
    };
    Some(Spanned::new(value.span(), rest))
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
