//! A resource in the OpenAPI document.

use utoipa::openapi::HttpMethod;

use super::bulk;
use super::column::{Column, leak};
use super::definition::{Resource, camel};
use super::description::Operation as Offered;
use super::history;
use super::kind::Kind;
use super::list;
use super::parameters::{CONDITIONS, at, if_match, key, tags};
use super::representation::{article, changes, described, details, patch_example, shape, stored};
use crate::http::body::{JSON, MERGE_PATCH};
use crate::http::describe::{Document, Operation, content, header};
use crate::http::problem::Code;
use crate::http::schema::{named, one_of, text};
use crate::idempotency::openapi::retried;

/// Adds the operations on a resource.
pub fn describe(resource: &'static Resource, document: &mut Document) {
    for column in resource.fields() {
        if let (Kind::Enum(texts), Some(name)) = (&column.kind, column.docs.schema) {
            let schema = one_of(texts.iter().map(|text| leak(text.as_str())));
            document.named(name, described(schema, column.docs.description));
        }
    }
    let singular = resource.singular;
    let id = |verb: &str| leak(format!("{verb}{}", camel(singular)));
    let title = |verb: &str, rest: &str| leak(format!("{verb} {} {singular}{rest}", article(singular)));
    let stored_name = leak(camel(singular));
    let details_name = leak(format!("{stored_name}Details"));
    document.named(stored_name, shape(resource, true));
    document.named(details_name, shape(resource, false));
    let tag = resource.title;
    let tag_meaning = format!("identifies this state of the {singular}");
    let row = || [(JSON, content(named(stored_name), stored(resource)))];
    let whole = || [(JSON, content(named(details_name), details(resource)))];
    let is_stored = leak(format!("The {singular} as stored."));
    let the = leak(format!("The {singular}."));

    list::openapi::describe(resource, document);

    let many = "Many rows are accepted as a JSON array, as CSV with a header, or as newline-delimited JSON: all are stored or \
                none, and the errors of every invalid row are reported.";
    let create = Operation::new(tag, id("create"), title("Create", ""))
        .description(leak(format!("The server generates the uuid. {} {many}", requirements(resource))))
        .with([header("Prefer", text(), "for many rows: `return=minimal` or `return=representation`", "return=minimal")])
        .request_body(
            true,
            &format!("The {singular}, or many, without uuids."),
            bulk::openapi::request_content(resource, named(details_name), details(resource)),
        )
        .response(
            201,
            &format!(
                "The {singular} as stored; for many rows, their number, or all of them with `Prefer: return=representation`."
            ),
            bulk::openapi::response_content(resource, named(stored_name), stored(resource)),
        )
        .header("Location", text(), &format!("the canonical URL of the new {singular}, for a single row"))
        .header("ETag", tags(), &tag_meaning)
        .header("Preference-Applied", text(), "`return=minimal` or `return=representation`, if applied")
        .response(200, "The body contains no rows.", bulk::openapi::empty_response_content())
        .problems([Code::InvalidJson, Code::InvalidFields, Code::NotAcceptable]);

    let get = Operation::new(tag, id("get"), title("Read", ""))
        .with([key(singular)])
        .with(resource.sql.history.as_ref().map(|_| at(singular)))
        .with([header("If-None-Match", tags(), &format!("return 304 if the {singular} is in this state"), "\"6\"")])
        .with([header("If-Match", tags(), &format!("return 412 unless the {singular} is in this state"), "\"6\"")])
        .response(200, the, row())
        .header("ETag", tags(), &tag_meaning)
        .response(304, "The client already has this state.", [])
        .header("ETag", tags(), &tag_meaning)
        .problems([Code::InvalidUuid, Code::NotFound, Code::InvalidHeader, Code::PreconditionFailed]);

    let replace = Operation::new(tag, id("replace"), title("Replace", ""))
        .with([key(singular), if_match(singular)])
        .description(leak(format!("The body is the whole {singular}. It may repeat the uuid of the path.")))
        .request_body(true, the, whole())
        .response(200, is_stored, row())
        .header("ETag", tags(), &tag_meaning)
        .problems([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
        .problems(CONDITIONS);

    let patch =
        Operation::new(tag, id("patch"), leak(format!("Change some fields of {} {singular}", article(singular))))
            .with([key(singular), if_match(singular)])
            .description("A merge patch (RFC 7396): omitted fields are unchanged; `null` clears a nullable field.")
            .request_body(
                true,
                "The fields that change.",
                [MERGE_PATCH, JSON].map(|media_type| (media_type, content(changes(resource), patch_example(resource)))),
            )
            .response(200, is_stored, row())
            .header("ETag", tags(), &tag_meaning)
            .problems([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
            .problems(CONDITIONS);

    let delete = Operation::new(tag, id("delete"), title("Delete", ""))
        .with([key(singular), if_match(singular)])
        .response(204, &format!("The {singular} is deleted."), [])
        .problems([Code::InvalidUuid, Code::NotFound])
        .problems(CONDITIONS);

    let urls = &resource.urls;
    for (offered, method, templates, operation) in [
        (Offered::Create, HttpMethod::Post, urls.create, retried(create)),
        (Offered::Read, HttpMethod::Get, urls.read, get),
        (Offered::Replace, HttpMethod::Put, urls.replace, replace),
        (Offered::Patch, HttpMethod::Patch, urls.patch, patch),
        (Offered::Delete, HttpMethod::Delete, urls.delete, delete),
    ] {
        if resource.offers(offered) {
            document.operation(method, templates, &operation);
        }
    }
    history::openapi::describe(resource, document);
}

/// Which fields are required, and which may be null.
fn requirements(resource: &Resource) -> String {
    let named = |wanted: fn(&Column) -> bool| {
        let names = resource.fields().iter().filter(|column| wanted(column)).map(|column| format!("`{}`", column.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let (optional, nullable) = (named(|column| !column.required), named(|column| column.nullable));
    let required = if optional.is_empty() {
        "All fields are required".to_owned()
    } else {
        format!("All fields except {optional} are required")
    };
    if nullable.is_empty() {
        format!("{required}; none may be null.")
    } else {
        format!("{required}; only {nullable} may be null.")
    }
}
