//! Passengers in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::bulk;
use super::list;
use super::model::Sex;
use super::routes::{CREATE, DELETE, GET, PATCH, REPLACE};
use super::schema::{TAG, UUID, changes, details, shape, stored, uuid};
use crate::http::body::{JSON, MERGE_PATCH};
use crate::http::describe::{Document, Operation, content, header, path};
use crate::http::problem::Code;
use crate::http::schema::{named, text};
use crate::idempotency::openapi::retried;

const STORED: &str = "Passenger";
const DETAILS: &str = "PassengerDetails";
const TAG_MEANING: &str = "names this state of the passenger";
/// What a change may fail with that is made under a condition.
const CONDITIONS: [Code; 3] = [Code::InvalidHeader, Code::PreconditionFailed, Code::PreconditionRequired];
/// Adds the operations on passengers.
pub fn describe(document: &mut Document) {
    document.schema::<Sex>();
    document.named(STORED, shape(true));
    document.named(DETAILS, shape(false));
    let passenger = || [(JSON, content(named(STORED), stored()))];
    let whole = || [(JSON, content(named(DETAILS), details()))];

    list::openapi::describe(document);

    let create = Operation::new(TAG, "createPassenger", "Create a passenger")
        .says(
            "The server makes the uuid. All fields are required; only `age` may be null. Many are taken as a JSON array, as \
             CSV with a header, or as one JSON object per line: all are stored or none, and every bad row is named.",
        )
        .with([header("Prefer", text(), "of many: `return=minimal` or `return=representation`", "return=minimal")])
        .takes(true, "The passenger, or many, without uuids.", bulk::openapi::taken(named(DETAILS), details()))
        .answers(
            201,
            "The passenger as stored; of many their count, or all of them with `Prefer: return=representation`.",
            bulk::openapi::answered(named(STORED), stored()),
        )
        .header("Location", text(), "the canonical URL of the new passenger, if it is one")
        .header("ETag", tags(), TAG_MEANING)
        .header("Preference-Applied", text(), "`return=minimal` or `return=representation`, if that was preferred")
        .fails([Code::InvalidJson, Code::InvalidFields, Code::NotAcceptable]);
    document.operation(HttpMethod::Post, CREATE, &retried(create));

    let get = Operation::new(TAG, "getPassenger", "Read a passenger")
        .with([key()])
        .with([header("If-None-Match", tags(), "answer 304 while the passenger is in this state", "\"6\"")])
        .with([header("If-Match", tags(), "answer 412 unless the passenger is in this state", "\"6\"")])
        .answers(200, "The passenger.", passenger())
        .header("ETag", tags(), TAG_MEANING)
        .answers(304, "The client has this state already.", [])
        .header("ETag", tags(), TAG_MEANING)
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidHeader, Code::PreconditionFailed]);
    document.operation(HttpMethod::Get, GET, &get);

    let replace = Operation::new(TAG, "replacePassenger", "Replace a passenger")
        .with([key(), if_match()])
        .says("The body is the whole passenger. It may repeat the uuid of the path.")
        .takes(true, "The passenger.", whole())
        .answers(200, "The passenger as stored.", passenger())
        .header("ETag", tags(), TAG_MEANING)
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
        .fails(CONDITIONS);
    document.operation(HttpMethod::Put, REPLACE, &replace);

    let patch = Operation::new(TAG, "patchPassenger", "Change some fields of a passenger")
        .with([key(), if_match()])
        .says("A merge patch (RFC 7396): fields that are left out stay as they are; `null` makes the age unknown.")
        .takes(true, "The fields that change.", [(MERGE_PATCH, content(changes(), json!({"age": 28, "fare": 14.5})))])
        .answers(200, "The passenger as stored.", passenger())
        .header("ETag", tags(), TAG_MEANING)
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
        .fails(CONDITIONS);
    document.operation(HttpMethod::Patch, PATCH, &patch);

    let delete = Operation::new(TAG, "deletePassenger", "Delete a passenger")
        .with([key(), if_match()])
        .answers(204, "The passenger is deleted.", [])
        .fails([Code::InvalidUuid, Code::NotFound])
        .fails(CONDITIONS);
    document.operation(HttpMethod::Delete, DELETE, &delete);
}

fn if_match() -> Parameter {
    header("If-Match", tags(), "change the passenger only while it is in this state, which its ETag names", "\"6\"")
}

fn tags() -> RefOr<Schema> {
    let form = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(form)).into())
}

fn key() -> Parameter {
    path("uuid", uuid(), "the passenger's key", UUID)
}
