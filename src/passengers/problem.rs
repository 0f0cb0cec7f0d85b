//! What failures of the store mean to clients.

use super::model;
use crate::db::error::StoreError;
use crate::http::problem::Problem;

/// What a failed operation on passengers tells the client.
#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
pub fn problem(error: StoreError) -> Problem {
    Problem::from_store(
        &error,
        "no passenger has this uuid; GET /v1/passengers lists those that exist",
        model::constraint_field,
    )
}
