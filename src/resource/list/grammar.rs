//! PostgREST's grammar of conditions: `age=gte.30`, `name=not.ilike.*smith*`, `or=(age.lt.18,and(sex.eq.male,fare.gt.50))`.
//!
//! Every error of a text that can be split is reported; a text that cannot be split ends its parameter. Nesting depth and
//! number of conditions are limited. Blanks after a comma, a parenthesis or a closing quote are ignored. No text makes this
//! panic.

mod rest;

use std::fmt::Write;

use self::rest::{BLANKS, Rest, like, up_to_mark};
use super::super::column::Column;
use super::super::definition::Resource;
use super::super::kind::Kind;
use super::super::value::Value;
use super::advice::meant;
use super::filter::{Comparison, Condition, Join, Node, Test, Truth, operators, truths};

/// Maximum nesting depth of groups; more than is written by hand.
const DEPTH_MAX: usize = 8;
/// Maximum number of conditions in a request: each may be evaluated for each row.
const TESTS_MAX: usize = 64;
/// Maximum number of patterns in a request: each costs as much as dozens of comparisons.
const PATTERNS_MAX: usize = 16;
/// Maximum length of a pattern in characters: `ilike` folds the case of all of it for each row.
const PATTERN_MAX_CHARS: usize = 256;
/// Maximum number of values of `in` in a request: each becomes a parameter and costs planning time.
const VALUES_MAX: usize = 200;
/// Maximum length of a condition for which a suggestion is made.
const ADVISED_MAX_BYTES: usize = 100;
/// Maximum number of characters of the client's text quoted in an error message.
const SHOWN_MAX_CHARS: usize = 50;

/// The start of the client's text, quoted, for error messages.
pub fn shown(text: &str) -> String {
    format!("{:?}", part(text))
}

fn part(text: &str) -> String {
    text.chars().take(SHOWN_MAX_CHARS).collect()
}

/// Parses the conditions of one request.
#[derive(Debug)]
pub struct Reader {
    resource: &'static Resource,
    faults: Vec<String>,
    tests: usize,
    patterns: usize,
    values: usize,
    /// Whether error messages contain suggestions.
    advises: bool,
}

/// The text could not be split any further; the error has been recorded.
struct Stuck;

impl Reader {
    /// Creates a parser of conditions on the columns of a resource.
    pub fn new(resource: &'static Resource) -> Self {
        Self { resource, faults: Vec::new(), tests: 0, patterns: 0, values: 0, advises: true }
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
            self.advise(before, column, "", text);
        }
        node
    }

    /// A parser that tries suggestions and makes none itself.
    fn quiet(&self) -> Self {
        Self { advises: false, ..Self::new(self.resource) }
    }

    /// Adds a suggestion to the error if it is the only one after the first `before`.
    fn advise(&mut self, before: usize, column: &'static Column, prefix: &str, text: &str) {
        let (negated, behind) = not(text);
        let quiet = self.quiet();
        let [fault] = &mut self.faults[before..] else { return };
        if !self.advises || text.len() > ADVISED_MAX_BYTES || fault.contains("; write ") {
            return;
        }
        let reads = |text: &str| Self { faults: Vec::new(), ..quiet }.condition(column, text).is_some();
        if let Some(meant) = meant(column, behind, &reads) {
            // A double negation is simplified.
            let meant = match (negated, meant.strip_prefix("not.")) {
                (true, Some(plain)) => plain.to_owned(),
                (true, None) => format!("not.{meant}"),
                (false, _) => meant,
            };
            let _ = write!(fault, "; write {prefix}{meant}"); // writing to a String cannot fail
        }
    }

    fn one(&mut self, column: &'static Column, text: &str) -> Option<Node> {
        let (negated, behind) = not(text);
        let Some((operator, value)) = behind.split_once('.').filter(|(operator, _)| is_word(operator)) else {
            self.without_operator(column, negated, behind);
            return None;
        };
        let test = if operator == "in" {
            let mut rest = Rest(value);
            let test = self.list(column, &mut rest).ok()?;
            self.end(&rest);
            test
        } else {
            self.test(column, operator, value)
        };
        Some(Node::Test(Condition { column, negated, test: test? }))
    }

    /// Parses the value of `and` or `or`: conditions in parentheses.
    pub fn group(&mut self, negated: bool, join: Join, text: &str) -> Option<Node> {
        let mut rest = Rest(text);
        let Ok(group) = self.nodes(negated, join, &mut rest, 1) else {
            let whole = format!("({text})");
            let is_one = !text.contains('(') && self.advises && self.quiet().group(negated, join, &whole).is_some();
            if let Some(fault) = self.faults.last_mut().filter(|_| is_one) {
                let _ = write!(fault, "; write {whole}"); // writing to a String cannot fail
            }
            return None;
        };
        self.end(&rest);
        group
    }

    fn end(&mut self, rest: &Rest<'_>) {
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
            format!("has {} without an operator; write {not}eq.{}", shown(text), part(text))
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

    fn stuck<T>(&mut self, rest: &Rest<'_>, expected: &str) -> Result<T, Stuck> {
        self.faults.push(format!("has {} where {expected} is expected", shown(rest.0)));
        Err(Stuck)
    }

    fn nodes(&mut self, negated: bool, join: Join, rest: &mut Rest<'_>, depth: usize) -> Result<Option<Node>, Stuck> {
        if depth > DEPTH_MAX {
            self.faults.push(format!("is nested more than {DEPTH_MAX} levels deep"));
            return Err(Stuck);
        }
        rest.blanks();
        if !rest.mark("(") {
            return self.stuck(rest, "a group in parentheses, such as (a.eq.1,b.is.null),");
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
                return self.stuck(rest, "a comma or a closing parenthesis");
            }
        }
    }

    fn node(&mut self, rest: &mut Rest<'_>, depth: usize) -> Result<Option<Node>, Stuck> {
        for (name, negated, join) in [
            ("and", false, Join::And),
            ("or", false, Join::Or),
            ("not.and", true, Join::And),
            ("not.or", true, Join::Or),
        ] {
            let behind = rest.0.strip_prefix(name).map(|behind| behind.trim_start_matches(BLANKS));
            if let Some(behind) = behind.filter(|behind| behind.starts_with('(')) {
                rest.0 = behind;
                return self.nodes(negated, join, rest, depth + 1);
            }
        }
        let (before, whole) = (self.faults.len(), rest.0);
        let Some(name) = rest.word() else {
            let stuck = self.stuck(rest, "a condition, such as a.gte.30, or a group, such as or(…),");
            let text = up_to_mark(whole);
            let name = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
            if let Some(column) = self.resource.column(name) {
                self.advise(before, column, &format!("{name}."), &text[name.len()..]);
            }
            return stuck;
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
        let (negated, behind) = not(rest.0);
        rest.0 = behind;
        let Some(operator) = rest.word() else {
            let stuck = self.stuck(rest, "an operator and a value, such as gte.30,");
            if let Some(column) = column {
                self.advise(before, column, &format!("{name}."), &format!("eq.{}", up_to_mark(condition)));
            }
            return stuck;
        };
        // A condition on an unknown column is parsed as one on a text column, so that what follows is checked too.
        let judged = column.or(self.resource.columns.iter().find(|column| matches!(column.kind, Kind::Text { .. })));
        let judged = judged.unwrap_or(self.resource.key());
        let test = if operator == "in" {
            self.list(judged, rest)?
        } else {
            let value = self.value(rest)?;
            column.and_then(|column| self.test(column, operator, &value))
        };
        if let (None, Some(column)) = (&test, column) {
            self.advise(before, column, &format!("{name}."), up_to_mark(condition));
        }
        Ok(column.zip(test).map(|(column, test)| Node::Test(Condition { column, negated, test })))
    }

    /// Parses the values of `in`, in parentheses; the list may be empty.
    fn list(&mut self, column: &'static Column, rest: &mut Rest<'_>) -> Result<Option<Test>, Stuck> {
        rest.blanks();
        if !rest.mark("(") {
            return self.stuck(rest, "a list in parentheses, such as in.(1,2),");
        }
        self.count()?;
        let mut values = Vec::new();
        let mut whole = true;
        if rest.mark(")") {
            return Ok(Some(Test::In(values)));
        }
        loop {
            let text = self.value(rest)?;
            self.values += 1;
            if self.values > VALUES_MAX {
                self.faults.push(format!("has more than {VALUES_MAX} values of in"));
                return Err(Stuck);
            }
            let value = self.read(column, &text);
            whole &= value.is_some();
            values.extend(value);
            if rest.mark(")") {
                return Ok(whole.then_some(Test::In(values)));
            }
            if !rest.mark(",") {
                return self.stuck(rest, "a comma or a closing parenthesis");
            }
        }
    }

    /// Parses a value that ends at a comma or parenthesis, or is in double quotes, in which a backslash escapes.
    fn value(&mut self, rest: &mut Rest<'_>) -> Result<String, Stuck> {
        let Some(quoted) = rest.0.strip_prefix('"') else {
            let end = rest.0.find([',', '(', ')']).unwrap_or(rest.0.len());
            let (value, behind) = rest.0.split_at(end);
            rest.0 = behind;
            return Ok(value.to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((place, next)) = chars.next() {
            match next {
                '"' => {
                    rest.0 = &quoted[place + 1..];
                    rest.blanks();
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                plain => value.push(plain),
            }
        }
        self.stuck(rest, "a closing double quote")
    }

    fn test(&mut self, column: &'static Column, operator: &str, text: &str) -> Option<Test> {
        if self.count().is_err() {
            return None;
        }
        let comparison =
            Comparison::ALL.iter().find(|(_, name, _)| *name == operator).map(|(comparison, ..)| *comparison);
        match (operator, comparison) {
            ("eq" | "neq", Some(comparison)) => Some(Test::Compare(comparison, self.read(column, text)?)),
            (_, Some(comparison)) if column.kind != Kind::Boolean => {
                Some(Test::Compare(comparison, self.read(column, text)?))
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
                truth.map(Test::Is)
            }
            _ => {
                self.faults.push(format!(
                    "has the unknown operator {}; {} takes {}, each also with not. in front",
                    shown(operator),
                    column.name,
                    operators(column)
                ));
                None
            }
        }
    }

    fn pattern(&mut self, any_case: bool, text: &str) -> Option<Test> {
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
        pattern.map(|pattern| Test::Like { any_case, pattern })
    }

    fn read(&mut self, column: &'static Column, text: &str) -> Option<Value<'static>> {
        let value = column.read_filter(text);
        if value.is_none() {
            let hint =
                if text.trim().eq_ignore_ascii_case("null") { "; is.null finds rows without a value" } else { "" };
            let rule = column.filter_complaint(text);
            self.faults.push(format!("has {} where {} takes {rule}{hint}", shown(text), column.name));
        }
        value
    }

    fn count(&mut self) -> Result<(), Stuck> {
        self.tests += 1;
        if self.tests <= TESTS_MAX {
            return Ok(());
        }
        self.faults.push(format!("has more than {TESTS_MAX} conditions"));
        Err(Stuck)
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
    matches!(&*word, "like" | "ilike" | "in" | "is" | "not") || Comparison::ALL.iter().any(|(_, name, _)| *name == word)
}

#[cfg(test)]
mod tests;
