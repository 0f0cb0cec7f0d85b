//! Bulk creation in the OpenAPI document.

use serde_json::Value;
use utoipa::openapi::{Content, OneOfBuilder, RefOr, Schema};

use super::super::definition::Resource;
use super::super::representation::csv_example;
use crate::http::body::{CSV, JSON, NDJSON};
use crate::http::describe::content;
use crate::http::schema::{array_of, integer, object, text};

/// Content of the request: one row, or many in each format.
pub fn request_content(resource: &Resource, one: RefOr<Schema>, example: Value) -> [(&'static str, Content); 3] {
    let lines = format!("{example}\n");
    let many = OneOfBuilder::new().item(one.clone()).item(array_of(one));
    [
        (JSON, content(RefOr::T(many.into()), example)),
        (CSV, content(text(), csv_example(resource, false))),
        (NDJSON, content(text(), lines)),
    ]
}

/// Content of the response to a body without rows: their count, or an empty list.
pub fn empty_response_content() -> [(&'static str, Content); 3] {
    let count = object([("count", integer(0, 0), true)]);
    let either = OneOfBuilder::new().item(count).item(array_of(text()));
    [
        (JSON, content(RefOr::T(either.into()), serde_json::json!({"count": 0}))),
        (CSV, content(text(), "")),
        (NDJSON, content(text(), "")),
    ]
}

/// Content of the response: one row as stored, the number of rows, or all of them.
pub fn response_content(resource: &Resource, one: RefOr<Schema>, example: Value) -> [(&'static str, Content); 3] {
    let count = object([("count", integer(0, i64::MAX), true), ("notes", array_of(text()), false)]);
    let lines = format!("{example}\n");
    let either = OneOfBuilder::new().item(one.clone()).item(array_of(one)).item(count);
    [
        (JSON, content(RefOr::T(either.into()), example)),
        (CSV, content(text(), csv_example(resource, true))),
        (NDJSON, content(text(), lines)),
    ]
}
