//! Bulk creation in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::{Content, OneOfBuilder, RefOr, Schema};

use crate::http::body::{CSV, JSON, NDJSON};
use crate::http::describe::content;
use crate::http::schema::{array_of, integer, object, text};

const CSV_TAKEN: &str = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n\
     true,2,Post-Test-Name,male,27,0,0,13\n";
const CSV_ANSWERED: &str = "uuid,survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n\
     0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10,true,2,Post-Test-Name,male,27,0,0,13\n";

/// What is posted: one passenger, or many in each form.
pub fn taken(one: RefOr<Schema>, example: Value) -> [(&'static str, Content); 3] {
    let lines = format!("{example}\n");
    let many = OneOfBuilder::new().item(one.clone()).item(array_of(one));
    [
        (JSON, content(RefOr::T(many.into()), example)),
        (CSV, content(text(), CSV_TAKEN)),
        (NDJSON, content(text(), lines)),
    ]
}

/// What is answered: one passenger as stored, how many there are, or all of them.
pub fn answered(one: RefOr<Schema>, example: Value) -> [(&'static str, Content); 3] {
    let count = object([("count", integer(0, i64::MAX), true)]);
    let lines = format!("{}\n", json!(example));
    let either = OneOfBuilder::new().item(one.clone()).item(array_of(one)).item(count);
    [
        (JSON, content(RefOr::T(either.into()), example)),
        (CSV, content(text(), CSV_ANSWERED)),
        (NDJSON, content(text(), lines)),
    ]
}
