//! Histories in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::schema::{OneOfBuilder, SchemaType};
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::super::column::leak;
use super::super::definition::{Resource, camel};
use super::super::list::openapi::cursor;
use super::super::list::request::{PAGE_DEFAULT, PAGE_MAX};
use super::super::parameters::{CONDITIONS, date_time, if_match, key, tags};
use super::super::representation::stored;
use super::routes::encode;
use crate::http::body::{JSON, NDJSON};
use crate::http::describe::{Document, Operation, content, query};
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, named, object, one_of, text};
use crate::idempotency::openapi::retried;

/// Adds the operations on a resource's history, if it has one.
pub fn describe(resource: &'static Resource, document: &mut Document) {
    if resource.sql.history.is_none() {
        return;
    }
    let (tag, singular, name) = (resource.title, resource.singular, leak(camel(resource.singular)));
    let change = leak(format!("{name}Change"));
    document.named(change, entry(name));
    let example = json!({
        "operation": "replace", "changedAt": "2026-01-31T12:00:00.000001Z", "changedBy": "token:3f2a",
        "requestId": "4bf92f3577b34da6a3ce929d0e0e4736", "versionBefore": 6,
        "versionAfter": 7, "before": stored(resource)
    });
    let history = Operation::new(
        tag,
        leak(format!("{}History", uncapitalised(name))),
        leak(format!("List the changes of one {singular}")),
    )
    .description(leak(format!(
        "Newest first, each with the actor, the time, the request and the previous values, also for a deleted {singular}. \
        Without `limit`, a page of {PAGE_DEFAULT}. `Link` has the URLs of the next and previous page."
    )))
    .with([key(singular)])
    .with([
        query("limit", integer(1, PAGE_MAX as i64), "maximum number of changes in the response", 100),
        query("after", cursor(), "the page of older changes; a cursor of `Link`", encode(7)),
        query("before", cursor(), "the page of newer changes; a cursor of `Link`", encode(7)),
    ])
    .response(
        200,
        "The changes.",
        [(JSON, content(array_of(named(change)), json!([example]))), (NDJSON, content(text(), format!("{example}\n")))],
    )
    .header("Link", text(), "`rel=\"next\"` and `rel=\"prev\"`: the next and previous page, if they exist")
    .problems([Code::InvalidUuid, Code::NotFound, Code::InvalidQuery, Code::NotAcceptable]);
    let wanted = object([("version", integer(i64::MIN, i64::MAX), false)]);
    let restore = Operation::new(tag, leak(format!("restore{name}")), leak(format!("Restore one {singular}")))
        .description(leak(format!(
            "Restores a deleted {singular}, or one of its versions, as a change with a new version. Without `version`, or \
            without a body, only a deleted {singular} is restored."
        )))
        .with([key(singular), if_match(singular)])
        .request_body(false, "Which version.", [(JSON, content(wanted, json!({"version": 6})))])
        .response(200, leak(format!("The {singular} as stored.")), [(JSON, content(named(name), stored(resource)))])
        .header("ETag", tags(), &format!("identifies this state of the {singular}"))
        .problems([Code::InvalidUuid, Code::NotFound, Code::Conflict, Code::InvalidJson, Code::InvalidFields])
        .problems(CONDITIONS);
    document.operation(HttpMethod::Get, resource.urls.history, &history);
    document.operation(HttpMethod::Post, resource.urls.restore, &retried(restore));
}

fn entry(name: &str) -> RefOr<Schema> {
    let version = || or_null(Type::Integer);
    let before = OneOfBuilder::new().item(named(name)).item(ObjectBuilder::new().schema_type(Type::Null));
    object([
        ("operation", one_of(["create", "replace", "patch", "delete", "restore"]), true),
        ("changedAt", date_time(), true),
        ("changedBy", or_null(Type::String), true),
        ("requestId", or_null(Type::String), true),
        ("versionBefore", version(), true),
        ("versionAfter", version(), true),
        ("before", RefOr::T(before.into()), true),
    ])
}

fn or_null(kind: Type) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null])).into())
}

/// `Passenger` as `passenger`.
fn uncapitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
