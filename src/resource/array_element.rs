//! Selects the array element that belongs to a row, in statements that change many rows.

/// The element of an array parameter for the current row, by the index of its key among the ascending keys in `$1`.
///
/// A join with `unnest` would be equivalent, but the planner would choose its order. Without a join the only plan is an index
/// scan over the keys, which a b-tree returns in ascending order, so rows are locked in that order.
pub fn element(parameter: usize, of: &str) -> String {
    element_of("p", parameter, of)
}

/// The same with another alias of the table.
pub fn element_of(rows: &str, parameter: usize, of: &str) -> String {
    format!("(${parameter}::{of}[])[width_bucket({rows}.uuid, $1)]")
}
