//! A resource in the OpenAPI document.

use serde_json::{Map, Value as Json, json};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{HttpMethod, KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type};

use super::bulk;
use super::column::{Column, leak};
use super::definition::{Resource, camel};
use super::description::Operation as Offered;
use super::examples::UUID;
use super::kind::Kind;
use super::list;
use super::value::Value;
use crate::http::body::{JSON, MERGE_PATCH};
use crate::http::describe::{Document, Operation, content, header, path};
use crate::http::problem::Code;
use crate::http::schema::{named, one_of, text};
use crate::idempotency::openapi::retried;

/// What a change may fail with that is made under a condition.
const CONDITIONS: [Code; 3] = [Code::InvalidHeader, Code::PreconditionFailed, Code::PreconditionRequired];

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
    let tag_meaning = format!("names this state of the {singular}");
    let row = || [(JSON, content(named(stored_name), stored(resource)))];
    let whole = || [(JSON, content(named(details_name), details(resource)))];
    let is_stored = leak(format!("The {singular} as stored."));
    let the = leak(format!("The {singular}."));

    list::openapi::describe(resource, document);

    let many = "Many are taken as a JSON array, as CSV with a header, or as one JSON object per line: all are stored or none, \
                and every bad row is named.";
    let create = Operation::new(tag, id("create"), title("Create", ""))
        .says(leak(format!("The server makes the uuid. {} {many}", requirements(resource))))
        .with([header("Prefer", text(), "of many: `return=minimal` or `return=representation`", "return=minimal")])
        .takes(
            true,
            &format!("The {singular}, or many, without uuids."),
            bulk::openapi::taken(resource, named(details_name), details(resource)),
        )
        .answers(
            201,
            &format!(
                "The {singular} as stored; of many their count, or all of them with `Prefer: return=representation`."
            ),
            bulk::openapi::answered(resource, named(stored_name), stored(resource)),
        )
        .header("Location", text(), &format!("the canonical URL of the new {singular}, if it is one"))
        .header("ETag", tags(), &tag_meaning)
        .header("Preference-Applied", text(), "`return=minimal` or `return=representation`, if that was preferred")
        .fails([Code::InvalidJson, Code::InvalidFields, Code::NotAcceptable]);

    let get = Operation::new(tag, id("get"), title("Read", ""))
        .with([key(singular)])
        .with([header("If-None-Match", tags(), &format!("answer 304 while the {singular} is in this state"), "\"6\"")])
        .with([header("If-Match", tags(), &format!("answer 412 unless the {singular} is in this state"), "\"6\"")])
        .answers(200, the, row())
        .header("ETag", tags(), &tag_meaning)
        .answers(304, "The client has this state already.", [])
        .header("ETag", tags(), &tag_meaning)
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidHeader, Code::PreconditionFailed]);

    let replace = Operation::new(tag, id("replace"), title("Replace", ""))
        .with([key(singular), if_match(singular)])
        .says(leak(format!("The body is the whole {singular}. It may repeat the uuid of the path.")))
        .takes(true, the, whole())
        .answers(200, is_stored, row())
        .header("ETag", tags(), &tag_meaning)
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
        .fails(CONDITIONS);

    let patch = Operation::new(
        tag,
        id("patch"),
        leak(format!("Change some fields of {} {singular}", article(singular))),
    )
    .with([key(singular), if_match(singular)])
    .says("A merge patch (RFC 7396): fields that are left out stay as they are; `null` empties one that may be null.")
    .takes(true, "The fields that change.", [(MERGE_PATCH, content(changes(resource), patch_example(resource)))])
    .answers(200, is_stored, row())
    .header("ETag", tags(), &tag_meaning)
    .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields])
    .fails(CONDITIONS);

    let delete = Operation::new(tag, id("delete"), title("Delete", ""))
        .with([key(singular), if_match(singular)])
        .answers(204, &format!("The {singular} is deleted."), [])
        .fails([Code::InvalidUuid, Code::NotFound])
        .fails(CONDITIONS);

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
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// Which fields must be there, and which may be null.
fn requirements(resource: &Resource) -> String {
    let named = |wanted: fn(&Column) -> bool| {
        let names = resource.fields().iter().filter(|column| wanted(column)).map(|column| format!("`{}`", column.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let (optional, nullable) = (named(|column| !column.required), named(|column| column.nullable));
    let required = if optional.is_empty() {
        "All fields are required".to_owned()
    } else {
        format!("All fields but {optional} are required")
    };
    if nullable.is_empty() {
        format!("{required}; none may be null.")
    } else {
        format!("{required}; only {nullable} may be null.")
    }
}

/// A row as it is stored, with its uuid, or as a client sends it: no member but these.
fn shape(resource: &Resource, is_stored: bool) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object);
    if is_stored {
        object = object.property("uuid", uuid()).required("uuid");
    }
    for column in resource.fields() {
        object = object.property(column.name, schema(column));
        if column.required || is_stored {
            object = object.required(column.name);
        }
    }
    let singular = resource.singular;
    let article = if article(singular) == "an" { "An" } else { "A" };
    let what = if is_stored { "as it is stored" } else { "as a client sends it" };
    let object = object
        .description(Some(format!("{article} {singular} {what}.")))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    RefOr::T(object.into())
}

/// What a column's values are.
fn schema(column: &Column) -> RefOr<Schema> {
    let of = |kind: Type| {
        let either = if column.nullable { SchemaType::from_iter([kind, Type::Null]) } else { kind.into() };
        ObjectBuilder::new().schema_type(either)
    };
    let format = |known| Some(SchemaFormat::KnownFormat(known));
    let object = match &column.kind {
        Kind::Boolean => of(Type::Boolean),
        Kind::Integer { bits, minimum, maximum, .. } => {
            let object = of(Type::Integer).minimum(Some(*minimum)).maximum(Some(*maximum));
            object.format(format(if *bits == 64 { KnownFormat::Int64 } else { KnownFormat::Int32 }))
        }
        Kind::Number { minimum, maximum } => {
            of(Type::Number).minimum(*minimum).maximum(*maximum).format(format(KnownFormat::Double))
        }
        Kind::Decimal { precision, scale, .. } => {
            let whole = precision - scale;
            let fraction = if *scale == 0 { String::new() } else { format!(r"(\.[0-9]{{1,{scale}}})?") };
            of(Type::String).pattern(Some(format!(r"^-?[0-9]{{1,{}}}{fraction}$", whole.max(1))))
        }
        Kind::Text { min_length, max_length, pattern } => {
            let object = of(Type::String).min_length(Some(*min_length as usize)).max_length(Some(*max_length as usize));
            object.pattern(Some(pattern.clone().unwrap_or_else(|| {
                let any = if *min_length > 0 { "+" } else { "*" };
                format!(r"^[^\x00]{any}$")
            })))
        }
        Kind::Enum(_) if column.docs.schema.is_some() && !column.nullable => {
            let mut reference = Ref::from_schema_name(column.docs.schema.unwrap_or_default());
            reference.description = column.rule.strip_prefix("must be ").unwrap_or_default().to_owned();
            return reference.into();
        }
        Kind::Enum(texts) => {
            let values = texts.iter().map(|text| Json::from(text.as_str()));
            of(Type::String).enum_values(Some(values.chain(column.nullable.then_some(Json::Null))))
        }
        Kind::Date => of(Type::String).format(format(KnownFormat::Date)),
        Kind::DateTime => of(Type::String).format(format(KnownFormat::DateTime)),
        Kind::Uuid => of(Type::String).format(format(KnownFormat::Uuid)),
    };
    described(RefOr::T(object.into()), column.docs.description)
}

fn described(schema: RefOr<Schema>, description: Option<&'static str>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.description = description.map(str::to_owned);
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}

/// Any of a row's fields.
fn changes(resource: &Resource) -> RefOr<Schema> {
    any_of(shape(resource, false))
}

/// A row in a list, which may be asked for some members only.
pub(super) fn listed(resource: &Resource) -> RefOr<Schema> {
    any_of(shape(resource, true))
}

/// The same with no member that must be there.
fn any_of(whole: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = whole else { return whole };
    object.required.clear();
    object.description = None;
    RefOr::T(Schema::Object(object))
}

fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into())
}

fn details(resource: &Resource) -> Json {
    Json::Object(resource.example())
}

fn patch_example(resource: &Resource) -> Json {
    Json::Object(resource.example().into_iter().rev().take(1).collect())
}

/// The example of a stored row.
pub(super) fn stored(resource: &Resource) -> Json {
    let mut row = Map::from_iter([("uuid".to_owned(), json!(UUID))]);
    row.extend(resource.example());
    Json::Object(row)
}

/// The example of a row as CSV, with its header.
pub(super) fn csv_example(resource: &Resource, with_key: bool) -> String {
    let mut out = Vec::new();
    let columns = if with_key { &resource.columns } else { resource.fields() };
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    out.extend_from_slice(names.join(",").as_bytes());
    out.push(b'\n');
    let row = stored(resource);
    for (index, column) in columns.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        let raw = row[column.name].to_string();
        column.read_json(&raw).unwrap_or(Value::Null).write_csv(&mut out);
    }
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

fn if_match(singular: &str) -> Parameter {
    let meaning = format!("change the {singular} only while it is in this state, which its ETag names");
    header("If-Match", tags(), &meaning, "\"6\"")
}

fn tags() -> RefOr<Schema> {
    let form = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(form)).into())
}

fn key(singular: &str) -> Parameter {
    path("uuid", uuid(), &format!("the {singular}'s key"), UUID)
}
