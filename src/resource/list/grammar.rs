//! PostgREST's grammar of conditions: `age=gte.30`, `name=not.ilike.*smith*`, `or=(age.lt.18,and(sex.eq.male,fare.gt.50))`.
//!
//! Every fault of a text that can be split is found; one that cannot be split ends its parameter. Depth and number of
//! conditions are bounded. Nothing here panics, whatever the text.

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::kind::Kind;
use super::super::value::Value;
use super::filter::{Comparison, Condition, Join, Node, Test, Truth, operators, truths};

/// Groups in groups; nobody writes more by hand.
const DEPTH_MAX: usize = 8;
/// Conditions in one request: each is tried on each row.
const TESTS_MAX: usize = 64;
/// Patterns in one request: each costs as much as dozens of comparisons.
const PATTERNS_MAX: usize = 16;
/// Most characters of a pattern: `ilike` folds the case of all of it for each row.
const PATTERN_MAX_CHARS: usize = 256;
/// Values of `in` in one request: each becomes a parameter and planning time.
const VALUES_MAX: usize = 200;
/// How much of a client's text a complaint repeats.
const SHOWN_MAX_CHARS: usize = 50;

/// A part of the client's text, in quotes, for complaints.
pub fn shown(text: &str) -> String {
    let part: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    format!("{part:?}")
}

/// Reads the conditions of one request.
#[derive(Debug)]
pub struct Reader {
    resource: &'static Resource,
    faults: Vec<String>,
    tests: usize,
    patterns: usize,
    values: usize,
}

/// Why a text could not be split any further; the fault has been noted.
struct Stuck;

impl Reader {
    /// Conditions on the columns of a resource.
    pub fn new(resource: &'static Resource) -> Self {
        Self { resource, faults: Vec::new(), tests: 0, patterns: 0, values: 0 }
    }

    /// What was wrong since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Reads the value of a parameter that is a column: `gte.30`, `not.in.(1,2)`.
    pub fn condition(&mut self, column: &'static Column, text: &str) -> Option<Node> {
        let (negated, text) = not(text);
        let (operator, value) = text.split_once('.').unwrap_or((text, ""));
        let test = if operator == "in" {
            let mut rest = Rest(value);
            let test = self.list(column, &mut rest).ok()?;
            if !rest.0.is_empty() {
                self.faults.push(format!("has {} behind the closing parenthesis; remove it", shown(rest.0)));
            }
            test
        } else {
            self.test(column, operator, value)
        };
        Some(Node::Test(Condition { column, negated, test: test? }))
    }

    /// Reads the value of `and` or `or`: conditions in parentheses.
    pub fn group(&mut self, negated: bool, join: Join, text: &str) -> Option<Node> {
        let mut rest = Rest(text);
        let group = self.nodes(negated, join, &mut rest, 1).ok()?;
        if !rest.0.is_empty() {
            self.faults.push(format!("has {} behind the closing parenthesis; remove it", shown(rest.0)));
        }
        group
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
        if !rest.skip("(") {
            return self.stuck(rest, "a group in parentheses, such as (a.eq.1,b.is.null),");
        }
        let mut nodes = Vec::new();
        let mut whole = true;
        loop {
            let node = self.node(rest, depth)?;
            whole &= node.is_some();
            nodes.extend(node);
            if rest.skip(")") {
                return Ok(whole.then_some(Node::Group { negated, join, nodes }));
            }
            if !rest.skip(",") {
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
            if rest.0.strip_prefix(name).is_some_and(|behind| behind.starts_with('(')) {
                rest.skip(name);
                return self.nodes(negated, join, rest, depth + 1);
            }
        }
        let Some(name) = rest.word() else {
            return self.stuck(rest, "a condition, such as a.gte.30, or a group, such as or(…),");
        };
        let column = self.resource.column(name);
        if column.is_none() {
            self.faults.push(format!(
                "has the unknown column {}; the columns are {}",
                shown(name),
                self.resource.column_names
            ));
        }
        let (negated, behind) = not(rest.0);
        rest.0 = behind;
        let Some(operator) = rest.word() else {
            return self.stuck(rest, "an operator and a value, such as gte.30,");
        };
        // An unknown column's condition is read on as one that takes any value, so that what comes behind is judged too.
        let judged = column.or(self.resource.columns.iter().find(|column| matches!(column.kind, Kind::Text { .. })));
        let judged = judged.unwrap_or(self.resource.key());
        let test = if operator == "in" {
            self.list(judged, rest)?
        } else {
            let value = self.value(rest)?;
            column.and_then(|column| self.test(column, operator, &value))
        };
        Ok(column.zip(test).map(|(column, test)| Node::Test(Condition { column, negated, test })))
    }

    /// The values of `in`, in parentheses.
    fn list(&mut self, column: &'static Column, rest: &mut Rest<'_>) -> Result<Option<Test>, Stuck> {
        if !rest.skip("(") {
            return self.stuck(rest, "a list in parentheses, such as in.(1,2),");
        }
        self.count()?;
        let mut values = Vec::new();
        let mut whole = true;
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
            if rest.skip(")") {
                return Ok(whole.then_some(Test::In(values)));
            }
            if !rest.skip(",") {
                return self.stuck(rest, "a comma or a closing parenthesis");
            }
        }
    }

    /// A value up to a comma or a parenthesis, or in double quotes, in which a backslash escapes.
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
                let truth = Truth::ALL.iter().find(|(_, name, _)| *name == text).map(|(truth, ..)| *truth);
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

    /// As in PostgREST `*` is another way to write `%`, which would have to be escaped in a URL.
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
        let pattern = text.replace('*', "%");
        let escapes = pattern.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if escapes % 2 == 1 || pattern.contains('\0') {
            self.faults.push(format!(
                "has the pattern {}, which holds U+0000 or ends in a backslash that escapes nothing",
                shown(text)
            ));
            return None;
        }
        Some(Test::Like { any_case, pattern })
    }

    fn read(&mut self, column: &'static Column, text: &str) -> Option<Value<'static>> {
        let value = column.read_filter(text);
        if value.is_none() {
            self.faults.push(format!("has {} where {} takes {}", shown(text), column.name, column.filter_rule));
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

/// Whether a text begins with `not.`, and what follows.
fn not(text: &str) -> (bool, &str) {
    text.strip_prefix("not.").map_or((false, text), |rest| (true, rest))
}

/// What has not been read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, text: &str) -> bool {
        let behind = self.0.strip_prefix(text);
        self.0 = behind.unwrap_or(self.0);
        behind.is_some()
    }

    /// A name up to the next dot, both of which are skipped.
    fn word(&mut self) -> Option<&'a str> {
        let (word, behind) = self.0.split_once('.')?;
        if word.contains([',', '(', ')', '"']) {
            return None;
        }
        self.0 = behind;
        Some(word)
    }
}

#[cfg(test)]
mod tests;
