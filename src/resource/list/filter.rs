//! Which rows a list holds: conditions on columns, joined by `and` and `or`.
//!
//! `grammar` reads them out of the query string; `sql` turns them into SQL.

use super::super::column::Column;
use super::super::kind::Kind;
use super::super::value::Value;

/// Conditions that must all hold; none lets every row through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(pub Vec<Node>);

/// A condition, or several joined.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// One condition on one column.
    Test(Condition),
    /// Several, at least one.
    Group {
        /// The opposite is meant.
        negated: bool,
        /// How they are joined.
        join: Join,
        /// What is joined.
        nodes: Vec<Node>,
    },
}

/// How conditions are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// All must hold.
    And,
    /// One must hold.
    Or,
}

/// One condition on one column. Unless it is `is`, it holds for no row whose value is null, negated or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The column.
    pub column: &'static Column,
    /// The opposite is meant.
    pub negated: bool,
    /// What its value must be.
    pub test: Test,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `eq`, `neq`, `gt`, `gte`, `lt`, `lte`
    Compare(Comparison, Value<'static>),
    /// `like` or `ilike`: the pattern in SQL's form, where `%` and `_` stand for anything and a backslash escapes.
    Like {
        /// Upper and lower case are the same.
        any_case: bool,
        /// Does not end in the middle of an escape.
        pattern: String,
    },
    /// `in`: one of these; with none of them it holds for no row, and reversed for every one.
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

/// What `is` asks for.
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
    /// `is.unknown`: SQL's name for a boolean that is null
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

/// The operators that a column has, for complaints.
pub fn operators(column: &Column) -> &'static str {
    if column.is_text() {
        "eq, neq, gt, gte, lt, lte, like, ilike, in, is"
    } else if column.kind == Kind::Boolean {
        "eq, neq, in, is"
    } else {
        "eq, neq, gt, gte, lt, lte, in, is"
    }
}

/// What `is` may ask of a column, for complaints.
pub fn truths(column: &Column) -> &'static str {
    if column.kind == Kind::Boolean { "null, not_null, true, false or unknown" } else { "null or not_null" }
}
