//! Builds statements from constant fragments; every value becomes a parameter.

use tokio_postgres::types::Type;

use super::super::value::Value;
use super::filter::{Condition, Filter, Join, Node, Predicate};
use super::keyset::{Bound, KeysetRange, Side};
use super::order::SortKey;
use crate::db::session::Param;

/// A statement under construction.
#[derive(Debug, Default)]
pub struct Statement {
    /// The text so far.
    pub text: String,
    /// The values of its parameters, in order.
    values: Vec<Value<'static>>,
}

impl Statement {
    /// Starts with a constant.
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// The values with their types.
    pub fn params(&self) -> Vec<(Param<'_>, Type)> {
        self.values.iter().map(|value| (value as Param<'_>, value.param_type())).collect()
    }

    /// Appends a constant.
    pub fn push(&mut self, text: &'static str) {
        self.text.push_str(text);
    }

    fn value(&mut self, value: Value<'static>) {
        self.values.push(value);
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
    }

    /// Appends a filter and a keyset range as a `where` clause, if there are any conditions.
    pub fn rows(&mut self, filter: &Filter, range: Option<&KeysetRange<'_>>) {
        let mut keyword = " where ";
        for node in &filter.0 {
            self.push(std::mem::replace(&mut keyword, " and "));
            self.node(node);
        }
        for bound in range.map(|range| range.bounds.as_slice()).unwrap_or_default() {
            self.push(std::mem::replace(&mut keyword, " and "));
            self.bound(bound, (" = ", ""));
        }
    }

    /// Appends the bounds of a keyset range as a `where` clause, for an order that an index returns.
    ///
    /// The planner drops a column that equals a constant from the sort order. Other indexes, above all the key's, would match
    /// the remaining order and be scanned to their end; so a value is compared with a one-element array.
    pub fn range(&mut self, bounds: &[Bound]) {
        let mut keyword = " where ";
        for bound in bounds {
            self.push(std::mem::replace(&mut keyword, " and "));
            self.bound(bound, (" = any(array[", "])"));
        }
    }

    /// Appends a bound; the caller chooses the text before and after the value of an equality.
    fn bound(&mut self, bound: &Bound, at: (&'static str, &'static str)) {
        self.push(bound.column.ordered_sql);
        let ((prefix, suffix), value) = match &bound.side {
            Side::At(value) => (at, Some(value)),
            Side::Above(value) => ((" > ", ""), Some(value)),
            Side::Below(value) => ((" < ", ""), Some(value)),
            Side::Null => ((" is null", ""), None),
            Side::NotNull => ((" is not null", ""), None),
        };
        self.push(prefix);
        if let Some(value) = value {
            self.value(value.clone());
        }
        self.push(suffix);
    }

    /// Appends an order and a limit.
    pub fn order(&mut self, keys: impl Iterator<Item = SortKey>, limit: usize) {
        let mut keyword = " order by ";
        for key in keys {
            self.push(std::mem::replace(&mut keyword, ", "));
            self.push(key.column.ordered_sql);
            self.push(if key.descending { " desc" } else { "" });
            // PostgreSQL's default order of nulls is omitted, so that the order matches an index.
            if key.nulls_first != key.descending {
                self.push(if key.nulls_first { " nulls first" } else { " nulls last" });
            }
        }
        self.limit(limit);
    }

    /// Appends a limit.
    pub fn limit(&mut self, limit: usize) {
        self.push(" limit ");
        self.value(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Condition(condition) => self.condition(condition),
            Node::Group { negated, join, nodes } => {
                self.push(if *negated { "not (" } else { "(" });
                for (index, node) in nodes.iter().enumerate() {
                    if index > 0 {
                        self.push(if *join == Join::And { " and " } else { " or " });
                    }
                    self.node(node);
                }
                self.push(")");
            }
        }
    }

    fn condition(&mut self, Condition { column, negated, predicate }: &Condition) {
        self.push(if *negated { "not (" } else { "(" });
        match predicate {
            Predicate::Compare(comparison, value) => {
                self.push(column.ordered_sql);
                self.push(comparison.sql());
                self.value(value.clone());
            }
            Predicate::Like { any_case, pattern } => {
                self.push(column.sql);
                self.push(if *any_case { " ilike " } else { " like " });
                self.value(Value::Text(pattern.clone().into()));
            }
            Predicate::In(values) if values.is_empty() => self.push("false"),
            Predicate::In(values) => {
                self.push(column.ordered_sql);
                for (index, value) in values.iter().enumerate() {
                    self.push(if index == 0 { " in (" } else { ", " });
                    self.value(value.clone());
                }
                self.push(")");
            }
            Predicate::Is(truth) => {
                self.push(column.sql);
                self.push(truth.sql());
            }
        }
        self.push(")");
    }
}
