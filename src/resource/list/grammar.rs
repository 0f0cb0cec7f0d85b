//! PostgREST's grammar of conditions: `age=gte.30`, `name=not.ilike.*smith*`, `or=(age.lt.18,and(sex.eq.male,fare.gt.50))`.
//!
//! Every error of a text that can be split is reported; a text that cannot be split ends its parameter. Nesting depth and
//! number of conditions are limited. Blanks after a comma, a parenthesis or a closing quote are ignored. No text makes this
//! panic.

mod scanner;

use std::fmt::Write;

use self::scanner::{BLANKS, Scanner, like, up_to_mark};
use super::super::column::Column;
use super::super::definition::Resource;
use super::super::kind::Kind;
use super::super::value::Value;
use super::filter::{Comparison, Condition, Join, Node, Predicate, Truth, operators, truths};
use super::suggestion::{OTHERS, suggest, suggest_several};

/// Maximum nesting depth of groups; more than is written by hand.
const DEPTH_MAX: usize = 8;
/// Maximum number of conditions in a request: each may be evaluated for each row.
const CONDITIONS_MAX: usize = 64;
/// Maximum number of patterns in a request: each costs as much as dozens of comparisons.
const PATTERNS_MAX: usize = 16;
/// Maximum length of a pattern in characters: `ilike` folds the case of all of it for each row.
const PATTERN_MAX_CHARS: usize = 256;
/// Maximum number of values of `in` in a request: each becomes a parameter and costs planning time.
const VALUES_MAX: usize = 200;
/// Maximum length of a condition for which a suggestion is made.
const SUGGESTION_MAX_BYTES: usize = 100;
/// Maximum number of characters of the client's text quoted in an error message.
const SHOWN_MAX_CHARS: usize = 50;

/// The start of the client's text, quoted, for error messages.
pub fn shown(text: &str) -> String {
    format!("{:?}", truncated(text))
}

fn truncated(text: &str) -> String {
    text.chars().take(SHOWN_MAX_CHARS).collect()
}

/// Parses the conditions of one request.
#[derive(Debug)]
pub struct ConditionParser {
    resource: &'static Resource,
    faults: Vec<String>,
    conditions: usize,
    patterns: usize,
    values: usize,
    /// Whether error messages contain suggestions.
    suggests: bool,
}

/// The text could not be split any further; the error has been recorded.
struct Unparsable;

impl ConditionParser {
    /// Creates a parser of conditions on the columns of a resource.
    pub fn new(resource: &'static Resource) -> Self {
        Self { resource, faults: Vec::new(), conditions: 0, patterns: 0, values: 0, suggests: true }
    }

    /// Returns the errors recorded since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Parses the value of a parameter named after a column: `gte.30`, `not.in.(1,2)`.
    pub fn condition(&mut self, column: &'static Column, text: &str) -> Option<Node> {
        let before = self.faults.len();
        let node = self.one(column, text);
        if node.is_none() {
            self.add_suggestion(before, column, "", text);
        }
        node
    }

    /// A parser that tries suggestions and makes none itself.
    fn quiet(&self) -> Self {
        Self { suggests: false, ..Self::new(self.resource) }
    }

    /// Adds a suggestion to the error if it is the only one after the first `before`.
    fn add_suggestion(&mut self, before: usize, column: &'static Column, prefix: &str, text: &str) {
        let (negated, remaining) = not(text);
        let quiet = self.quiet();
        let [fault] = &mut self.faults[before..] else { return };
        if !self.suggests || text.len() > SUGGESTION_MAX_BYTES || fault.contains("; write ") {
            return;
        }
        let reads = |text: &str| Self { faults: Vec::new(), ..quiet }.condition(column, text).is_some();
        let suggestion = suggest_several(column, negated, !prefix.is_empty(), remaining, &reads).or_else(|| {
            let suggestion = suggest(column, remaining, &reads)?;
            // A double negation is simplified.
            Some(match (negated, suggestion.strip_prefix("not.")) {
                (true, Some(plain)) => format!("{prefix}{plain}"),
                (true, None) => format!("{prefix}not.{suggestion}"),
                (false, _) => format!("{prefix}{suggestion}"),
            })
        });
        fault.extend(suggestion.map(|suggestion| format!("; write {suggestion}")));
    }

    fn one(&mut self, column: &'static Column, text: &str) -> Option<Node> {
        let (negated, remaining) = not(text);
        let Some((operator, value)) = remaining.split_once('.').filter(|(operator, _)| is_word(operator)) else {
            self.without_operator(column, negated, remaining);
            return None;
        };
        let predicate = if operator == "in" {
            let mut rest = Scanner(value);
            let predicate = self.list(column, &mut rest).ok()?;
            self.end(&rest);
            predicate
        } else {
            self.predicate(column, operator, value)
        };
        Some(Node::Condition(Condition { column, negated, predicate: predicate? }))
    }

    /// Parses the value of `and` or `or`: conditions in parentheses.
    pub fn group(&mut self, negated: bool, join: Join, text: &str) -> Option<Node> {
        let mut rest = Scanner(text);
        let Ok(group) = self.nodes(negated, join, &mut rest, 1) else {
            let whole = format!("({text})");
            let is_one = !text.contains('(') && self.suggests && self.quiet().group(negated, join, &whole).is_some();
            if let Some(fault) = self.faults.last_mut().filter(|_| is_one) {
                let _ = write!(fault, "; write {whole}"); // writing to a String cannot fail
            }
            return None;
        };
        self.end(&rest);
        group
    }

    fn end(&mut self, rest: &Scanner<'_>) {
        if !rest.0.is_empty() {
            self.faults.push(format!("has {} after the closing parenthesis; remove it", shown(rest.0)));
        }
    }

    /// Records the error for a value without an operator, with a suggestion.
    fn without_operator(&mut self, column: &'static Column, negated: bool, text: &str) {
        let not = if negated { "not." } else { "" };
        let fault = if text.eq_ignore_ascii_case("null") {
            format!("has {} without an operator; write {not}is.null", shown(text))
        } else if !text.is_empty() && !begins_as_condition(text) && column.read_filter(text).is_some() {
            format!("has {} without an operator; write {not}eq.{}", shown(text), truncated(text))
        } else {
            format!(
                "has {} where an operator and a value, such as is.null, are expected; {} takes {}",
                shown(text),
                column.name,
                operators(column)
            )
        };
        self.faults.push(fault);
    }

    fn expected<T>(&mut self, rest: &Scanner<'_>, expected: &str) -> Result<T, Unparsable> {
        self.faults.push(format!("has {} where {expected} is expected", shown(rest.0)));
        Err(Unparsable)
    }

    fn nodes(
        &mut self,
        negated: bool,
        join: Join,
        rest: &mut Scanner<'_>,
        depth: usize,
    ) -> Result<Option<Node>, Unparsable> {
        if depth > DEPTH_MAX {
            self.faults.push(format!("is nested more than {DEPTH_MAX} levels deep"));
            return Err(Unparsable);
        }
        rest.blanks();
        if !rest.mark("(") {
            return self.expected(rest, "a group in parentheses, such as (a.eq.1,b.is.null),");
        }
        let mut nodes = Vec::new();
        let mut whole = true;
        loop {
            let node = self.node(rest, depth)?;
            whole &= node.is_some();
            nodes.extend(node);
            if rest.mark(")") {
                return Ok(whole.then_some(Node::Group { negated, join, nodes }));
            }
            if !rest.mark(",") {
                return self.expected(rest, "a comma or a closing parenthesis");
            }
        }
    }

    fn node(&mut self, rest: &mut Scanner<'_>, depth: usize) -> Result<Option<Node>, Unparsable> {
        for (name, negated, join) in [
            ("and", false, Join::And),
            ("or", false, Join::Or),
            ("not.and", true, Join::And),
            ("not.or", true, Join::Or),
        ] {
            let remaining = rest.0.strip_prefix(name).map(|remaining| remaining.trim_start_matches(BLANKS));
            if let Some(remaining) = remaining.filter(|remaining| remaining.starts_with('(')) {
                rest.0 = remaining;
                return self.nodes(negated, join, rest, depth + 1);
            }
        }
        let (before, whole) = (self.faults.len(), rest.0);
        let Some(name) = rest.word() else {
            let unparsable = self.expected(rest, "a condition, such as a.gte.30, or a group, such as or(…),");
            let text = up_to_mark(whole);
            let name = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
            if let Some(column) = self.resource.column(name) {
                self.add_suggestion(before, column, &format!("{name}."), &text[name.len()..]);
            }
            return unparsable;
        };
        let column = self.resource.column(name);
        if column.is_none() {
            self.faults.push(format!(
                "has the unknown column {}; the columns are {}",
                shown(name),
                self.resource.column_names
            ));
        }
        let condition = rest.0;
        let (negated, remaining) = not(rest.0);
        rest.0 = remaining;
        let Some(operator) = rest.word() else {
            let unparsable = self.expected(rest, "an operator and a value, such as gte.30,");
            if let Some(column) = column {
                self.add_suggestion(before, column, &format!("{name}."), &format!("eq.{}", up_to_mark(condition)));
            }
            return unparsable;
        };
        // A condition on an unknown column is parsed as one on a text column, so that what follows is checked too.
        let checked_as =
            column.or(self.resource.columns.iter().find(|column| matches!(column.kind, Kind::Text { .. })));
        let checked_as = checked_as.unwrap_or(self.resource.key());
        let predicate = if operator == "in" {
            self.list(checked_as, rest)?
        } else {
            let value = self.value(rest)?;
            column.and_then(|column| self.predicate(column, operator, &value))
        };
        if let (None, Some(column)) = (&predicate, column) {
            self.add_suggestion(before, column, &format!("{name}."), up_to_mark(condition));
        }
        Ok(column.zip(predicate).map(|(column, predicate)| Node::Condition(Condition { column, negated, predicate })))
    }

    /// Parses the values of `in`, in parentheses; the list may be empty.
    fn list(&mut self, column: &'static Column, rest: &mut Scanner<'_>) -> Result<Option<Predicate>, Unparsable> {
        rest.blanks();
        if !rest.mark("(") {
            return self.expected(rest, "a list in parentheses, such as in.(1,2),");
        }
        self.count()?;
        let mut values = Vec::new();
        let mut whole = true;
        if rest.mark(")") {
            return Ok(Some(Predicate::In(values)));
        }
        loop {
            let text = self.value(rest)?;
            self.values += 1;
            if self.values > VALUES_MAX {
                self.faults.push(format!("has more than {VALUES_MAX} values of in"));
                return Err(Unparsable);
            }
            let value = self.read(column, &text);
            whole &= value.is_some();
            values.extend(value);
            if rest.mark(")") {
                return Ok(whole.then_some(Predicate::In(values)));
            }
            if !rest.mark(",") {
                return self.expected(rest, "a comma or a closing parenthesis");
            }
        }
    }

    /// Parses a value that ends at a comma or parenthesis, or is in double quotes, in which a backslash escapes.
    fn value(&mut self, rest: &mut Scanner<'_>) -> Result<String, Unparsable> {
        let Some(quoted) = rest.0.strip_prefix('"') else {
            let end = rest.0.find([',', '(', ')']).unwrap_or(rest.0.len());
            let (value, remaining) = rest.0.split_at(end);
            rest.0 = remaining;
            return Ok(value.to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((index, next)) = chars.next() {
            match next {
                '"' => {
                    rest.0 = &quoted[index + 1..];
                    rest.blanks();
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                plain => value.push(plain),
            }
        }
        self.expected(rest, "a closing double quote")
    }

    fn predicate(&mut self, column: &'static Column, operator: &str, text: &str) -> Option<Predicate> {
        if self.count().is_err() {
            return None;
        }
        let comparison =
            Comparison::ALL.iter().find(|(_, name, _)| *name == operator).map(|(comparison, ..)| *comparison);
        match (operator, comparison) {
            ("eq" | "neq", Some(comparison)) => Some(Predicate::Compare(comparison, self.read(column, text)?)),
            (_, Some(comparison)) if column.kind != Kind::Boolean => {
                Some(Predicate::Compare(comparison, self.read(column, text)?))
            }
            ("like" | "ilike", _) if column.is_text() => self.pattern(operator == "ilike", text),
            ("is", _) => {
                let named = |name: &str| name.eq_ignore_ascii_case(text.trim());
                let truth = Truth::ALL.iter().find(|(_, name, _)| named(name)).map(|(truth, ..)| *truth);
                let truth =
                    truth.filter(|truth| column.kind == Kind::Boolean || matches!(truth, Truth::Null | Truth::NotNull));
                if truth.is_none() {
                    self.faults.push(format!("has {} where is takes {}", shown(text), truths(column)));
                }
                truth.map(Predicate::Is)
            }
            _ => {
                self.faults.push(format!(
                    "has the unknown operator {}; {} takes {}, each optionally prefixed with not.",
                    shown(operator),
                    column.name,
                    operators(column)
                ));
                None
            }
        }
    }

    fn pattern(&mut self, any_case: bool, text: &str) -> Option<Predicate> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            self.faults.push(format!("has more than {PATTERNS_MAX} patterns"));
            return None;
        }
        if text.chars().count() > PATTERN_MAX_CHARS {
            self.faults.push(format!("has a pattern of more than {PATTERN_MAX_CHARS} characters: {}", shown(text)));
            return None;
        }
        let pattern = like(text);
        if pattern.is_none() {
            self.faults.push(format!(
                "has the pattern {}, which contains U+0000 or ends in a backslash that escapes nothing",
                shown(text)
            ));
        }
        pattern.map(|pattern| Predicate::Like { any_case, pattern })
    }

    fn read(&mut self, column: &'static Column, text: &str) -> Option<Value<'static>> {
        let value = column.read_filter(text);
        if value.is_none() {
            let hint =
                if text.trim().eq_ignore_ascii_case("null") { "; is.null finds rows without a value" } else { "" };
            let rule = column.filter_message(text);
            self.faults.push(format!("has {} where {} takes {rule}{hint}", shown(text), column.name));
        }
        value
    }

    fn count(&mut self) -> Result<(), Unparsable> {
        self.conditions += 1;
        if self.conditions <= CONDITIONS_MAX {
            return Ok(());
        }
        self.faults.push(format!("has more than {CONDITIONS_MAX} conditions"));
        Err(Unparsable)
    }
}

/// Whether a text starts with `not.`, and what follows.
fn not(text: &str) -> (bool, &str) {
    text.strip_prefix("not.").map_or((false, text), |rest| (true, rest))
}

/// Whether a text may be an operator, known or not, rather than the start of a value.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Whether a text starts with a misspelt operator: `in(1,2)`, `like(any).{a*,b*}`, `EQ.1`.
fn begins_as_condition(text: &str) -> bool {
    let word = text.trim_start().split(['.', '(', ':', '=', ' ']).next().unwrap_or_default().to_ascii_lowercase();
    OTHERS.contains(&word.as_str()) || Comparison::ALL.iter().any(|(_, name, _)| *name == word)
}

#[cfg(test)]
mod tests;
