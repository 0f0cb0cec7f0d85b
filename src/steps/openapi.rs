//! Deployment steps in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::model::{Duration, Field, Step, Summary, TEXT_MAX_CHARS};
use super::request::PAGE_MAX;
use super::routes::{DURATIONS, STEPS};
use crate::http::body::{FORM, JSON};
use crate::http::describe::{Document, Operation, content, query};
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, object, one_of, reference, text};
use crate::idempotency::openapi::retried;

const TAG: &str = "Deployment steps";
const CSV: &str = "text/csv";

const STEPS_CSV: &str = "id,ts,component,version,owner,status\r\n\
    1,2026-01-31T12:00:00.000000Z,api,1.2.3,ann,started\r\n";
const DURATIONS_CSV: &str = "id,component,version,status,owner,start,end,duration_seconds\r\n\
    1,api,1.2.3,started,ann,2026-01-31T12:00:00.000000Z,2026-01-31T12:00:04.500000Z,4.5\r\n";

/// Adds the operations on steps.
pub fn describe(document: &mut Document) {
    document.schema::<Step<'_>>();
    document.schema::<Duration<'_>>();
    document.schema::<Summary<'_>>();

    let record = Operation::new(TAG, "recordStep", "Record a step that begins now")
        .says(
            "The four fields come as parameters of the query string, as a form or as a JSON object, in one place only. \
             Steps are append-only.",
        )
        .with(Field::ALL.map(|field| query(field.name(), field_text(), field_meaning(field), field_example(field))))
        .takes(
            false,
            "The step, unless it is in the query string.",
            [(JSON, content(new_step(), new_example())), (FORM, content(new_step(), new_example()))],
        )
        .answers(201, "The step as recorded.", [(JSON, content(reference::<Step<'_>>(), step()))])
        .fails([Code::InvalidQuery, Code::InvalidJson, Code::InvalidFields]);
    document.operation(HttpMethod::Post, STEPS, &retried(record));

    let list = Operation::new(TAG, "listSteps", "List steps")
        .says("In order of time, ties by id. CSV unless JSON is asked for. Without `limit` all of them are streamed.")
        .with(filters())
        .answers(
            200,
            "The steps.",
            [
                (CSV, content(text(), STEPS_CSV)),
                (
                    JSON,
                    content(object([("steps", array_of(reference::<Step<'_>>()), true)]), json!({"steps": [step()]})),
                ),
            ],
        )
        .header("Link", text(), "`rel=\"next\"`: the next page, when `limit` was given and there is more")
        .fails([Code::InvalidQuery, Code::NotAcceptable]);
    document.operation(HttpMethod::Get, STEPS, &list);

    let durations = [
        ("summary", array_of(reference::<Summary<'_>>()), false),
        ("durations", array_of(reference::<Duration<'_>>()), true),
    ];
    let durations = Operation::new(TAG, "listStepDurations", "List how long steps lasted")
        .says(
            "A step lasts until the next one of the same component and version; the last one has no end yet. JSON unless \
             CSV is asked for. With `summary=true` a summary per status comes first; in CSV it comes alone.",
        )
        .with(filters())
        .with([query("summary", one_of(["true", "false"]), "whether to add a summary per status", "true")])
        .answers(
            200,
            "The durations, by component, version and time.",
            [(JSON, content(object(durations), durations_example())), (CSV, content(text(), DURATIONS_CSV))],
        )
        .header("Link", text(), "`rel=\"next\"`: the next page, when `limit` was given and there is more")
        .fails([Code::InvalidQuery, Code::NotAcceptable]);
    document.operation(HttpMethod::Get, DURATIONS, &durations);
}

fn filters() -> [Parameter; 7] {
    let datetime = |name, side, example| {
        query(
            name,
            text(),
            &format!("steps that began at this time or {side}; UTC unless it names an offset or a zone"),
            example,
        )
    };
    [
        datetime("start_datetime", "later", "2026-01-01 00:00:00"),
        datetime("end_datetime", "earlier", "2036-12-31T23:59:59Z"),
        query("component", field_text(), "steps of exactly this component", "api"),
        query("owner", field_text(), "steps of exactly this owner", "ann"),
        query("format", one_of(["csv", "json"]), "stronger than the header Accept", "json"),
        query("limit", integer(1, PAGE_MAX), "a page of at most so many; everything when it is left out", "100"),
        query("after", integer(1, i64::MAX), "steps behind the one with this id, which must exist", "17"),
    ]
}

fn field_text() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(TEXT_MAX_CHARS));
    RefOr::T(text.pattern(Some(r"^[^\x00]+$")).into())
}

fn field_meaning(field: Field) -> &'static str {
    match field {
        Field::Component => "what is deployed",
        Field::Version => "which version of it",
        Field::Owner => "who is responsible",
        Field::Status => "what begins now",
    }
}

fn field_example(field: Field) -> &'static str {
    match field {
        Field::Component => "api",
        Field::Version => "1.2.3",
        Field::Owner => "ann",
        Field::Status => "started",
    }
}

fn new_step() -> RefOr<Schema> {
    object(Field::ALL.map(|field| (field.name(), field_text(), true)))
}

fn new_example() -> Value {
    Field::ALL.iter().map(|field| (field.name(), field_example(*field))).collect()
}

fn step() -> Value {
    json!({
        "id": 1, "ts": "2026-01-31T12:00:00.000000Z", "component": "api", "version": "1.2.3", "owner": "ann",
        "status": "started"
    })
}

fn durations_example() -> Value {
    json!({
        "summary": [{"status": "started", "count": 1, "finished": 1, "median": 4.5, "p95": 4.5}],
        "durations": [{
            "id": 1, "component": "api", "version": "1.2.3", "status": "started", "owner": "ann",
            "start": "2026-01-31T12:00:00.000000Z", "end": "2026-01-31T12:00:04.500000Z", "duration_seconds": 4.5
        }]
    })
}
