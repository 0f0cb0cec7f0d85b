//! Converts store errors to problems.

use super::definition::Resource;
use crate::db::error::StoreError;
use crate::http::problem::Problem;

/// The problem for a failed operation on rows of a resource.
#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
pub fn problem(resource: &'static Resource, error: StoreError) -> Problem {
    let field = |constraint: &str| resource.constraint_field(constraint).map(super::column::Column::error);
    Problem::from_store(&error, resource.missing, field)
}
