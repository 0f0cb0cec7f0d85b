//! Parameters of operations on single rows in the OpenAPI document.

use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};

use super::examples::UUID;
use super::representation::uuid;
use crate::http::describe::{header, path, query};
use crate::http::problem::Code;

/// Problems of a conditional change.
pub const CONDITIONS: [Code; 3] = [Code::InvalidHeader, Code::PreconditionFailed, Code::PreconditionRequired];

/// The parameter that selects a past state of a row.
pub fn at(singular: &str) -> Parameter {
    let version = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_i64)).maximum(Some(i64::MAX));
    let either = OneOfBuilder::new().item(version).item(date_time());
    let meaning = format!("the {singular} as it was: a version, as in its ETag, or an RFC 3339 time");
    query("at", RefOr::T(either.into()), &meaning, "2026-01-31T12:00:00Z")
}

/// The header that identifies the state to be changed.
pub fn if_match(singular: &str) -> Parameter {
    let meaning = format!("change the {singular} only if it is in this state, identified by its ETag");
    header("If-Match", tags(), &meaning, "\"6\"")
}

/// A list of tags.
pub fn tags() -> RefOr<Schema> {
    let form = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(form)).into())
}

/// The key in the path.
pub fn key(singular: &str) -> Parameter {
    path("uuid", uuid(), &format!("the {singular}'s key"), UUID)
}

/// An instant.
pub fn date_time() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into())
}
