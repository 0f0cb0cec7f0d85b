//! The filter of a list: conditions on columns, combined by `and` and `or`.
//!
//! `grammar` parses them from the query string; `sql` translates them to SQL.

use super::super::column::Column;
use super::super::kind::Kind;
use super::super::value::Value;

/// Conditions that must all be true; an empty filter matches every row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(pub Vec<Node>);

/// A condition or a group of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A condition on a column.
    Condition(Condition),
    /// A group of at least one.
    Group {
        /// Whether it is negated.
        negated: bool,
        /// How they are combined.
        join: Join,
        /// The members.
        nodes: Vec<Node>,
    },
}

/// How conditions are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All must be true.
    And,
    /// At least one must be true.
    Or,
}

/// A condition on a column. Except for `is`, it is true for no row whose value is null, negated or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The column.
    pub column: &'static Column,
    /// Whether it is negated.
    pub negated: bool,
    /// The test of its value.
    pub predicate: Predicate,
}

/// A test of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// `eq`, `neq`, `gt`, `gte`, `lt`, `lte`
    Compare(Comparison, Value<'static>),
    /// `like` or `ilike`: the pattern in SQL syntax, where `%` and `_` are wildcards and a backslash escapes.
    Like {
        /// Whether letter case is ignored.
        any_case: bool,
        /// Does not end in an incomplete escape.
        pattern: String,
    },
    /// `in`: one of these; an empty list is true for no row, or for every row if negated.
    In(Vec<Value<'static>>),
    /// `is`
    Is(Truth),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `eq`
    Equal,
    /// `neq`
    NotEqual,
    /// `gt`
    Greater,
    /// `gte`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `lte`
    LessOrEqual,
}

/// The operand of `is`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// `is.null`
    Null,
    /// `is.not_null`
    NotNull,
    /// `is.true`
    True,
    /// `is.false`
    False,
    /// `is.unknown`: SQL's name for a null boolean
    Unknown,
}

impl Comparison {
    /// Each with its name in the query and its operator in SQL.
    pub const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Equal, "eq", "="),
        (Self::NotEqual, "neq", "<>"),
        (Self::Greater, "gt", ">"),
        (Self::GreaterOrEqual, "gte", ">="),
        (Self::Less, "lt", "<"),
        (Self::LessOrEqual, "lte", "<="),
    ];

    /// The operator in SQL.
    pub fn sql(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

impl Truth {
    /// Each with its name in the query and its test in SQL.
    pub const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Null, "null", " is null"),
        (Self::NotNull, "not_null", " is not null"),
        (Self::True, "true", " is true"),
        (Self::False, "false", " is false"),
        (Self::Unknown, "unknown", " is unknown"),
    ];

    /// The test in SQL.
    pub fn sql(self) -> &'static str {
        Self::ALL[self as usize].2
    }
}

/// The operators of a column, for error messages.
pub fn operators(column: &Column) -> &'static str {
    if column.is_text() {
        "eq, neq, gt, gte, lt, lte, like, ilike, in, is"
    } else if column.kind == Kind::Boolean {
        "eq, neq, in, is"
    } else {
        "eq, neq, gt, gte, lt, lte, in, is"
    }
}

/// The operands of `is` for a column, for error messages.
pub fn truths(column: &Column) -> &'static str {
    if column.kind == Kind::Boolean { "null, not_null, true, false or unknown" } else { "null or not_null" }
}
