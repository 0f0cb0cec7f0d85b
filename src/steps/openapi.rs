//! Deployment steps in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::listing::{DURATIONS, Listing, STEPS, SUMMARY, write_line};
use super::model::fields;
use super::request::PAGE_MAX;
use super::routes::{DURATIONS_URLS, STEPS_URLS};
use crate::http::body::{FORM, JSON};
use crate::http::describe::{Document, Operation, content, query};
use crate::http::format::Format;
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, named, object, one_of, text};
use crate::idempotency::openapi::retried;
use crate::resource::column::Column;
use crate::resource::representation::{described, schema};

const TAG: &str = "Deployment steps";
const CSV: &str = "text/csv";

/// Adds the operations on steps.
pub fn describe(document: &mut Document) {
    for listing in [&*STEPS, &*DURATIONS, &*SUMMARY] {
        document.named(&listing.schema, row(listing));
    }

    let record = Operation::new(TAG, "recordStep", "Record a step that begins now")
        .description(
            "Send the four fields as query parameters, as a form or as a JSON object, in one place only. \
             Steps are append-only.",
        )
        .with(fields().iter().map(parameter))
        .request_body(
            false,
            "The step, unless it is in the query string.",
            [(JSON, content(new_step(), new_example())), (FORM, content(new_step(), new_example()))],
        )
        .response(201, "The step as recorded.", [(JSON, content(named(&STEPS.schema), example(&STEPS)))])
        .problems([Code::InvalidQuery, Code::InvalidJson, Code::InvalidFields]);
    document.operation(HttpMethod::Post, STEPS_URLS, &retried(record));

    let list = Operation::new(TAG, "listSteps", "List steps")
        .description(
            "Ordered by time, then by id. CSV unless JSON is requested. Without `limit` all steps are streamed.",
        )
        .with(filters())
        .response(
            200,
            "The steps.",
            [
                (CSV, content(text(), csv(&STEPS))),
                (JSON, content(object([rows(&STEPS, true)]), json!({"steps": [example(&STEPS)]}))),
            ],
        )
        .header("Link", text(), "`rel=\"next\"`: the next page, if `limit` was given and more steps follow")
        .problems([Code::InvalidQuery, Code::NotAcceptable])
        .reads_replica();
    document.operation(HttpMethod::Get, STEPS_URLS, &list);

    let both = json!({"summary": [example(&SUMMARY)], "durations": [example(&DURATIONS)]});
    let durations = Operation::new(TAG, "listStepDurations", "List how long steps lasted")
        .description(
            "A step lasts until the next one of the same component and version; the last one has no end yet. JSON unless \
            CSV is requested. With `summary=true` a summary per status precedes the durations; in CSV it replaces them.",
        )
        .with(filters())
        .with([query("summary", one_of(["true", "false"]), "whether to add a summary per status", "true")])
        .response(
            200,
            "The durations, by component, version and time.",
            [
                (JSON, content(object([rows(&SUMMARY, false), rows(&DURATIONS, true)]), both)),
                (CSV, content(text(), csv(&DURATIONS))),
            ],
        )
        .header("Link", text(), "`rel=\"next\"`: the next page, if `limit` was given and more steps follow")
        .problems([Code::InvalidQuery, Code::NotAcceptable])
        .reads_replica();
    document.operation(HttpMethod::Get, DURATIONS_URLS, &durations);
}

fn filters() -> [Parameter; 7] {
    let datetime = |name, side, example| {
        query(
            name,
            text(),
            &format!("steps that began at this time or {side}; UTC unless it has an offset or a time zone"),
            example,
        )
    };
    [
        datetime("start_datetime", "later", "2026-01-01 00:00:00"),
        datetime("end_datetime", "earlier", "2036-12-31T23:59:59Z"),
        query("component", schema(&fields()[0]), "steps of this component", "api"),
        query("owner", schema(&fields()[2]), "steps of this owner", "ann"),
        query("format", one_of(["csv", "json"]), "overrides the header Accept", "json"),
        query("limit", integer(1, PAGE_MAX), "the maximum number of steps in a page; all steps if omitted", "100"),
        query("after", integer(1, i64::MAX), "steps after the one with this id, which must exist", "17"),
    ]
}

fn parameter(column: &'static Column) -> Parameter {
    let meaning = column.docs.description.unwrap_or_default();
    query(column.name, schema(column), meaning, value(column).as_str().unwrap_or_default())
}

fn new_step() -> RefOr<Schema> {
    members(fields())
}

fn new_example() -> Value {
    fields().iter().map(|column| (column.name, value(column))).collect()
}

/// The schema of a row.
fn row(listing: &'static Listing) -> RefOr<Schema> {
    described(members(&listing.columns), Some(&listing.description))
}

fn members(columns: &[Column]) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    let object = columns
        .iter()
        .fold(object, |object, column| object.property(column.name, schema(column)).required(column.name));
    RefOr::T(object.into())
}

/// The member of a response that contains rows.
fn rows(listing: &'static Listing, required: bool) -> (&'static str, RefOr<Schema>, bool) {
    (&listing.name, array_of(named(&listing.schema)), required)
}

fn example(listing: &Listing) -> Value {
    listing.columns.iter().map(|column| (column.name, value(column))).collect()
}

fn value(column: &Column) -> Value {
    column.docs.example.clone().unwrap_or_default()
}

fn csv(listing: &Listing) -> String {
    let mut out = Vec::new();
    listing.begin(Format::Csv, &mut out);
    let raw: Vec<String> = listing.columns.iter().map(|column| value(column).to_string()).collect();
    let read = listing.columns.iter().zip(&raw).filter_map(|(column, raw)| column.read_json(raw));
    write_line(&read.collect::<Vec<_>>(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
