//! Arrays as parameters of statements that change many rows: which of their values is whose.

/// What an array holds for the row at hand, by its key's place among the ascending keys in `$1`.
///
/// A join with `unnest` would do the same, in an order that the planner chooses. Without a join there is one way to go: an
/// index scan over the keys, which a b-tree takes in ascending order, and so are the rows locked.
pub fn own(parameter: usize, of: &str) -> String {
    own_of("p", parameter, of)
}

/// The same where the rows have another name.
pub fn own_of(rows: &str, parameter: usize, of: &str) -> String {
    format!("(${parameter}::{of}[])[width_bucket({rows}.uuid, $1)]")
}
