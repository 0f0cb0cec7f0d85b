//! Idempotency keys in the OpenAPI document.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use super::request::KEY_MAX_BYTES;
use crate::http::describe::{Operation, header};
use crate::http::problem::Code;
use crate::http::schema::one_of;

/// Adds the idempotency headers to an operation whose last response is its success.
pub fn retried(operation: Operation) -> Operation {
    operation
        .header(
            "Idempotency-Replayed",
            one_of(["true"]),
            "the response repeats the first response to a request with this key",
        )
        .with([header(
            "Idempotency-Key",
            key(),
            "a new value for each request that is not a retry; a request sent again with the same key is executed once",
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
        )])
        .problems([Code::InvalidHeader, Code::IdempotencyInFlight, Code::IdempotencyKeyReused])
}

/// Printable ASCII; surrounding blanks belong to the header, not to the key.
fn key() -> RefOr<Schema> {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]([ -~]*[!-~])?$"));
    RefOr::T(key.min_length(Some(1)).max_length(Some(KEY_MAX_BYTES)).into())
}
