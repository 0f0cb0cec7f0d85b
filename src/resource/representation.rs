//! The schemas of rows in the OpenAPI document, with examples.

use serde_json::{Map, Value as Json, json};
use utoipa::openapi::schema::{AdditionalProperties, SchemaType};
use utoipa::openapi::{KnownFormat, ObjectBuilder, Ref, RefOr, Schema, SchemaFormat, Type};

use super::column::Column;
use super::definition::Resource;
use super::examples::UUID;
use super::kind::Kind;
use super::value::Value;

/// The indefinite article for a noun.
pub fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The schema of a row as stored, with its uuid, or as a client sends it; other members are not allowed.
pub fn shape(resource: &Resource, is_stored: bool) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object);
    if is_stored {
        object = object.property("uuid", uuid()).required("uuid");
    }
    for column in resource.fields() {
        object = object.property(column.name, if is_stored { schema(column) } else { sent(column) });
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

/// The schema of a column in requests, where a decimal may also be a number.
fn sent(column: &Column) -> RefOr<Schema> {
    match (&column.kind, schema(column)) {
        (Kind::Decimal { .. }, RefOr::T(Schema::Object(mut object))) => {
            let types = [Type::String, Type::Number].into_iter().chain(column.nullable.then_some(Type::Null));
            object.schema_type = types.collect();
            RefOr::T(object.into())
        }
        (_, schema) => schema,
    }
}

/// The schema of a column's values.
pub fn schema(column: &Column) -> RefOr<Schema> {
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

/// Adds a description to a schema.
pub fn described(schema: RefOr<Schema>, description: Option<&'static str>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.description = description.map(str::to_owned);
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}

/// The schema of a patch: any of a row's fields.
pub fn changes(resource: &Resource) -> RefOr<Schema> {
    any_of(shape(resource, false))
}

/// The schema of a row in a list, which may have only the selected members.
pub fn listed(resource: &Resource) -> RefOr<Schema> {
    any_of(shape(resource, true))
}

/// Makes all members optional.
fn any_of(whole: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = whole else { return whole };
    object.required.clear();
    object.description = None;
    RefOr::T(Schema::Object(object))
}

/// The schema of a key.
pub fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into())
}

/// An example row as a client sends it.
pub fn details(resource: &Resource) -> Json {
    Json::Object(resource.example())
}

/// An example patch.
pub fn patch_example(resource: &Resource) -> Json {
    Json::Object(resource.example().into_iter().rev().take(1).collect())
}

/// An example row as stored.
pub fn stored(resource: &Resource) -> Json {
    let mut row = Map::from_iter([("uuid".to_owned(), json!(UUID))]);
    row.extend(resource.example());
    Json::Object(row)
}

/// An example row as CSV, with its header.
pub fn csv_example(resource: &Resource, with_key: bool) -> String {
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
