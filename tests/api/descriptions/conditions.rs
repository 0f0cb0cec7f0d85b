//! Random conditions over random descriptions, each written in one of several equivalent ways, compared with a model in memory
//! that uses SQL's three-valued logic.

use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use pycrudapi::resource::column::Column;
use pycrudapi::resource::definition::Resource;
use pycrudapi::resource::kind::Kind;
use pycrudapi::resource::value::Value;
use reqwest::{Method, StatusCode};

use super::{Row, Service, compare, comparison_holds, keys, list, members, value};
use crate::harness::send;

/// Maximum nesting of groups; the grammar allows more.
const DEPTH: u32 = 3;

/// Conditions before their operands are known: columns and values are picked from rows.
#[derive(Debug, Clone)]
pub enum Sketch {
    Test { column: Index, negated: bool, operator: Index, picks: Vec<Index>, marks: Vec<(Index, Index)> },
    Group { negated: bool, all: bool, inner: Vec<Sketch> },
}

/// Arbitrary conditions.
pub fn sketch() -> impl Strategy<Value = Sketch> {
    let picks = prop::collection::vec(any::<Index>(), 0..4);
    let marks = prop::collection::vec(any::<(Index, Index)>(), 0..3);
    let test = (any::<(Index, bool, Index)>(), picks, marks).prop_map(|((column, negated, operator), picks, marks)| {
        Sketch::Test { column, negated, operator, picks, marks }
    });
    test.prop_recursive(DEPTH, 12, 4, |inner| {
        (any::<bool>(), any::<bool>(), prop::collection::vec(inner, 1..4))
            .prop_map(|(negated, all, inner)| Sketch::Group { negated, all, inner })
    })
}

/// The notation of a condition where there is a choice.
#[derive(Debug, Clone)]
pub struct Style {
    blank: &'static str,
    quoted: bool,
    upper: bool,
}

/// An arbitrary notation.
pub fn style() -> impl Strategy<Value = Style> {
    (select(&["", " ", "\t "][..]), any::<bool>(), any::<bool>()).prop_map(|(blank, quoted, upper)| Style {
        blank,
        quoted,
        upper,
    })
}

/// A condition on one column.
enum Test {
    Compare(&'static str, Value<'static>),
    In(Vec<Value<'static>>),
    Is(&'static str),
    /// A pattern that escapes only wildcards, and whether it ignores case.
    Like(Vec<Option<char>>, bool),
}

enum Node {
    Test { column: &'static Column, negated: bool, test: Test },
    Group { negated: bool, all: bool, inner: Vec<Node> },
}

fn resolve(resource: &'static Resource, rows: &[Row], sketch: &Sketch) -> Node {
    match sketch {
        Sketch::Group { negated, all, inner } => Node::Group {
            negated: *negated,
            all: *all,
            inner: inner.iter().map(|sketch| resolve(resource, rows, sketch)).collect(),
        },
        Sketch::Test { column, negated, operator, picks, marks } => {
            let column: &'static Column = &resource.columns[column.index(resource.columns.len())];
            let some = |pick: &Index| Some(value(resource, pick.get(rows), column)).filter(|value| !value.is_null());
            let values: Vec<Value<'static>> = picks.iter().filter_map(some).collect();
            Node::Test { column, negated: *negated, test: test(column, *operator, values, marks) }
        }
    }
}

fn test(column: &Column, operator: Index, values: Vec<Value<'static>>, marks: &[(Index, Index)]) -> Test {
    let is: &[&str] = match column.kind {
        Kind::Boolean => &["null", "not_null", "true", "false", "unknown"],
        _ => &["null", "not_null"],
    };
    let comparisons: &[&str] = match column.kind {
        Kind::Boolean => &["eq", "neq"],
        _ => &["eq", "neq", "gt", "gte", "lt", "lte"],
    };
    let others = if column.is_text() { 6 } else { 4 };
    match (operator.index(comparisons.len() + others), values.first()) {
        (0, _) => Test::Is(is[operator.index(is.len())]),
        (1 | 2, _) | (_, None) => Test::In(values),
        (3..6, Some(Value::Text(text))) => {
            let mut parts: Vec<Option<char>> = text.chars().map(Some).collect();
            for (place, _) in marks {
                if !parts.is_empty() {
                    let place = place.index(parts.len());
                    parts[place] = None;
                }
            }
            Test::Like(parts, operator.index(2) == 0)
        }
        (other, Some(value)) => Test::Compare(comparisons[other % comparisons.len()], value.clone()),
    }
}

/// The truth value of a condition for a row; `None` is unknown.
fn truth(resource: &'static Resource, row: &Row, node: &Node) -> Option<bool> {
    let (negated, truth) = match node {
        Node::Group { negated, all, inner } => {
            let each: Vec<Option<bool>> = inner.iter().map(|node| truth(resource, row, node)).collect();
            let decided = each.contains(&Some(!all)).then_some(!all);
            (negated, decided.or(if each.contains(&None) { None } else { Some(*all) }))
        }
        Node::Test { column, negated, test } => (negated, holds(&value(resource, row, column), test)),
    };
    truth.map(|truth| truth != *negated)
}

fn holds(value: &Value<'_>, test: &Test) -> Option<bool> {
    let known = |truth: bool| (!value.is_null()).then_some(truth);
    match test {
        Test::Is("null" | "unknown") => Some(value.is_null()),
        Test::Is("not_null") => Some(!value.is_null()),
        Test::Is(truth) => Some(*value == Value::Boolean(*truth == "true")),
        Test::In(values) if values.is_empty() => Some(false),
        Test::In(values) => known(values.contains(value)),
        Test::Compare(..) | Test::Like(..) if value.is_null() => None,
        Test::Compare(comparison, other) => Some(comparison_holds(comparison, compare(value, other))),
        Test::Like(parts, any_case) => {
            let Value::Text(text) = value else { panic!("no text: {value:?}") };
            Some(fits(parts, &text.chars().collect::<Vec<_>>(), *any_case))
        }
    }
}

/// Whether a text matches the pattern, in which `None` matches any text.
fn fits(parts: &[Option<char>], text: &[char], any_case: bool) -> bool {
    match (parts, text) {
        ([], []) => true,
        ([None, rest @ ..], _) => (0..=text.len()).any(|cut| fits(rest, &text[cut..], any_case)),
        ([Some(this), parts @ ..], [letter, text @ ..]) => {
            let same = if any_case { this.to_lowercase().eq(letter.to_lowercase()) } else { this == letter };
            same && fits(parts, text, any_case)
        }
        _ => false,
    }
}

fn write(node: &Node, style: &Style) -> String {
    let Style { blank, .. } = style;
    let not = |negated: &bool| if *negated { "not." } else { "" };
    match node {
        Node::Group { negated, all, inner } => {
            let inner: Vec<String> = inner.iter().map(|node| write(node, style)).collect();
            let join = if *all { "and" } else { "or" };
            format!("{}{join}({blank}{}){blank}", not(negated), inner.join(&format!(",{blank}")))
        }
        Node::Test { column, negated, test } => {
            format!("{}.{}{}", column.name, not(negated), write_test(test, style, |text| quote(text, style)))
        }
    }
}

/// The part after the column and `not.`; `quote` formats the values.
fn write_test(test: &Test, style: &Style, quote: impl Fn(&str) -> String) -> String {
    match test {
        Test::Is(truth) if style.upper => format!("is.{}", truth.to_uppercase()),
        Test::Is(truth) => format!("is.{truth}"),
        Test::In(values) => {
            let values: Vec<String> = values.iter().map(|value| self::quote(&value.to_string(), style)).collect();
            format!("in.({})", values.join(&format!(",{}", style.blank)))
        }
        Test::Compare(comparison, value) => format!("{comparison}.{}", quote(&value.to_string())),
        Test::Like(parts, any_case) => {
            let mut pattern = String::new();
            for part in parts {
                match part {
                    None => pattern.push(if style.upper { '%' } else { '*' }),
                    Some(letter) if "*%_\\".contains(*letter) => write!(pattern, "\\{letter}").expect("a text"),
                    Some(letter) => pattern.push(*letter),
                }
            }
            format!("{}.{}", if *any_case { "ilike" } else { "like" }, quote(&pattern))
        }
    }
}

fn quote(text: &str, style: &Style) -> String {
    if style.quoted || text.is_empty() || text.starts_with([' ', '\t', '"']) || text.contains([',', '(', ')']) {
        format!("\"{}\"{}", text.replace('\\', "\\\\").replace('"', "\\\""), style.blank)
    } else {
        text.to_owned()
    }
}

/// Asserts that lists filtered by each condition contain the rows selected by the model.
pub async fn hold(service: &Service, cases: &[(Sketch, Style)]) {
    let Service { app, resource, .. } = service;
    let (all, _) = list(app, "/v1/things?limit=1000").await;
    for (sketch, style) in cases {
        let node = resolve(resource, &all, sketch);
        let expected: Vec<Row> = all.iter().filter(|row| truth(resource, row, &node) == Some(true)).cloned().collect();
        let mut ways = vec![("and", format!("({})", write(&node, style)))];
        if let Node::Test { column, negated, test } = &node {
            let not = if *negated { "not." } else { "" };
            // Outside groups a value extends to the end of the parameter.
            ways.push((column.name, format!("{not}{}", write_test(test, style, str::to_owned))));
        }
        for (parameter, condition) in ways {
            let request = app.request(Method::GET, "/v1/things").query(&[(parameter, &*condition), ("limit", "1000")]);
            let answer = send(request).await;
            assert_eq!(answer.status, StatusCode::OK, "{parameter}={condition}: {}", answer.body);
            let rows: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&answer.body).expect("an array");
            let found: Vec<Row> = rows.iter().map(|row| members(row.get())).collect();
            assert_eq!(keys(&found), keys(&expected), "{parameter}={condition}");
        }
    }
}
