//! Lists and statistics in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::super::column::{Column, IndexKind, leak};
use super::super::definition::{Function, Resource, camel};
use super::super::description::Operation as Offered;
use super::super::examples::UUID;
use super::super::kind::Kind;
use super::super::representation::{csv_example, listed, stored};
use super::super::value::Value;
use super::cursor;
use super::filter::{operators, truths};
use super::order::Order;
use super::request::{PAGE_DEFAULT, PAGE_MAX};
use crate::db::position::Consistency;
use crate::http::body::{CSV, JSON, NDJSON};
use crate::http::describe::{Document, Operation, content, header, query};
use crate::http::format::Format;
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, object, text};

/// Adds the operations on lists.
pub fn describe(resource: &'static Resource, document: &mut Document) {
    let tag = resource.title;
    let (name, whole) = (resource.name, resource.urls.list.get(1));
    let everything = whole.map(|url| format!(" and `{url}` all rows, streamed")).unwrap_or_default();
    let list = Operation::new(tag, leak(format!("list{}", camel(name))), leak(format!("List {name}")))
        .description(leak(format!(
            "Conditions, order and columns use PostgREST's grammar; a condition's parameter may be repeated. Without \
            `limit`, `/v1/{name}` returns a page of {PAGE_DEFAULT}{everything}. `select` restricts the members of each \
            row. `application/vnd.pgrst.object+json` returns a single row as an object, or 406 if there is not exactly \
            one. `Link` has the URLs of the next and previous page."
        )))
        .with(conditions(resource))
        .with([
            query(
                "select",
                columns(&[&["\\*"], names(resource).as_slice()].concat()),
                "the columns of the response, in this order; `*` stands for all columns not listed",
                selected(resource),
            ),
            query("order", order(resource), "columns, each with its direction; the key breaks ties", ordered(resource)),
            query("limit", integer(0, PAGE_MAX as i64), "maximum number of rows in the response", 100),
            query(
                "after",
                cursor(),
                "the page after this position; a cursor of the same order, from `Link`",
                position(resource),
            ),
            query("before", cursor(), "the page that ends before this position", position(resource)),
            header(
                "Prefer",
                text(),
                "`count=exact` or `count=estimated`: request the total number of rows",
                "count=exact",
            ),
        ])
        .response(
            200,
            leak(format!("The {name}.")),
            [
                (JSON, content(array_of(listed(resource)), json!([stored(resource)]))),
                (CSV, content(text(), csv_example(resource, true))),
                (NDJSON, content(text(), format!("{}\n", stored(resource)))),
                (Format::Object.media_type(), content(listed(resource), stored(resource))),
            ],
        )
        .header("Link", text(), "`rel=\"next\"` and `rel=\"prev\"`: the next and previous page, if they exist")
        .header("Content-Range", text(), "with `Prefer: count`: `0-99/1309`, or `*/1309` after a cursor")
        .header("Preference-Applied", text(), "`count=exact` or `count=estimated`, if applied")
        .problems([Code::InvalidQuery, Code::NotAcceptable])
        .reads_replica();
    if resource.offers(Offered::List) {
        document.operation(HttpMethod::Get, resource.urls.list, &list);
    }
    if resource.offers(Offered::Statistics) {
        statistics(resource, document);
    }
}

fn statistics(resource: &'static Resource, document: &mut Document) {
    let Some(statistics) = &resource.statistics else { return };
    let mut group =
        ObjectBuilder::new().schema_type(Type::Object).property("count", integer(0, i64::MAX)).required("count");
    let mut example = json!({"count": 94});
    for measure in &statistics.measures {
        let (schema, value) = match measure.function {
            Function::Count => (integer(0, i64::MAX), json!(91)),
            Function::Rate => (or_null(Type::Number), json!(0.968)),
            _ => (or_null(Type::Number), json!(34.6)),
        };
        group = group.property(measure.key, schema).required(measure.key);
        example[measure.key] = value;
    }
    let by = statistics.by.iter().find_map(|name| resource.column(name));
    if let Some(column) = by {
        example[column.name] = resource.example()[column.name].clone();
    }
    let operation = Operation::new(
        resource.title,
        leak(format!("{}Statistics", resource.singular)),
        leak(format!("Count {} in groups", resource.name)),
    )
    .description("For each group, the columns of `by`, the number of rows and the measures.")
    .with(conditions(resource))
    .with([query("by", columns(&statistics.by), "the columns by which rows are grouped", statistics.by.join(","))])
    .response(
        200,
        "The groups, ordered by the columns of `by`.",
        [(JSON, content(object([("groups", array_of(RefOr::T(group.into())), true)]), json!({"groups": [example]})))],
    )
    .problems([Code::InvalidQuery])
    .reads_replica();
    document.operation(HttpMethod::Get, resource.urls.statistics, &operation);
}

fn conditions(resource: &'static Resource) -> Vec<Parameter> {
    let column = |column: &Column| {
        let meaning = format!(
            "a condition: {}, each optionally prefixed with `not.`; `is` takes {}",
            operators(column),
            truths(column)
        );
        query(column.name, condition(column), &meaning, example(column))
    };
    let number =
        |column: &&Column| matches!(column.kind, Kind::Integer { .. } | Kind::Number { .. } | Kind::Decimal { .. });
    let unknown =
        resource.fields().iter().find(|column| column.nullable).map(|column| format!("{}.is.null", column.name));
    let above = resource.fields().iter().rfind(number).map(|column| format!("{}.gt.50", column.name));
    let mut examples: Vec<String> = unknown.into_iter().chain(above).collect();
    if examples.is_empty() {
        examples.push(format!("uuid.gte.{UUID}"));
    }
    let conditions = format!("({})", examples.join(","));
    let group = |name, meaning| {
        let form = r"^\([a-zA-Z]+\.[a-z]+\.[^()]*\)$";
        query(name, pattern(form), meaning, &conditions)
    };
    let mut parameters: Vec<Parameter> = resource.columns.iter().map(column).collect();
    parameters.extend([
        group("or", "at least one of these conditions is true; groups may be nested"),
        group("and", "all of these conditions are true"),
        group("not.or", "none of these conditions is true"),
        group("not.and", "at least one of these conditions is false"),
    ]);
    parameters
}

fn condition(column: &Column) -> RefOr<Schema> {
    let value = match (&column.kind, column.domain()) {
        (_, Some(domain)) => domain.iter().map(|value| regex::escape(&value.to_string())).collect::<Vec<_>>().join("|"),
        (Kind::Enum(texts), _) => texts.iter().map(|text| regex::escape(text)).collect::<Vec<_>>().join("|"),
        (Kind::Boolean, _) => "true|false".to_owned(),
        (Kind::Uuid, _) => "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".to_owned(),
        (Kind::Integer { .. }, _) => "-?[0-9]{1,9}".to_owned(),
        (Kind::Number { .. }, _) => r"-?[0-9]{1,9}(\.[0-9]{1,9})?".to_owned(),
        (Kind::Decimal { scale: 0, .. }, _) => "-?[0-9]{1,9}".to_owned(),
        (Kind::Decimal { scale, .. }, _) => format!(r"-?[0-9]{{1,9}}(\.[0-9]{{1,{scale}}})?"),
        (Kind::Date, _) => "[12][0-9]{3}-0[1-9]-(0[1-9]|1[0-9]|2[0-8])".to_owned(),
        (Kind::DateTime, _) => "[12][0-9]{3}-0[1-9]-(0[1-9]|1[0-9]|2[0-8])T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z".to_owned(),
        _ => "[^\"(),\\\\\\x00]+".to_owned(),
    };
    let (comparisons, truths) = if column.kind == Kind::Boolean {
        ("eq|neq", "null|not_null|true|false|unknown")
    } else if column.is_text() {
        ("eq|neq|gt|gte|lt|lte|like|ilike", "null|not_null")
    } else {
        ("eq|neq|gt|gte|lt|lte", "null|not_null")
    };
    pattern(&format!(r"^(not\.)?(({comparisons})\.({value})|in\.\((({value})(, ?({value}))*)?\)|is\.({truths}))$"))
}

fn example(column: &Column) -> String {
    match (&column.kind, column.domain()) {
        (_, Some(domain)) => format!("in.({})", domain.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        (Kind::Uuid, _) => format!("gte.{UUID}"),
        (Kind::Text { .. }, _) => "ilike.*a*".to_owned(),
        (Kind::Enum(texts), _) => format!("in.({})", texts.join(",")),
        (Kind::Date, _) => "gte.2026-01-31".to_owned(),
        (Kind::DateTime, _) => "gte.2026-01-31T12:00:00Z".to_owned(),
        _ => "gte.0".to_owned(),
    }
}

fn names(resource: &Resource) -> Vec<&'static str> {
    resource.columns.iter().map(|column| column.name).collect()
}

/// An example of `select`.
fn selected(resource: &Resource) -> String {
    resource.fields().iter().take(2).map(|column| column.name).collect::<Vec<_>>().join(",")
}

/// An example of an order, by an indexed column if there is one.
fn ordered(resource: &Resource) -> String {
    let indexed = resource.fields().iter().filter(|column| column.index != IndexKind::None);
    let column = indexed.chain(resource.fields()).next().expect("a resource has columns");
    format!("{}.desc", column.name)
}

fn columns(names: &[&str]) -> RefOr<Schema> {
    let name = names.join("|");
    pattern(&format!("^({name})(,({name}))*$"))
}

fn order(resource: &Resource) -> RefOr<Schema> {
    let key = format!(r"({})(\.(asc|desc))?(\.nulls(first|last))?", names(resource).join("|"));
    pattern(&format!("^{key}(,{key})*$"))
}

/// The schema of a cursor.
pub fn cursor() -> RefOr<Schema> {
    pattern("^[A-Za-z0-9_-]+$")
}

/// An example cursor of the default order.
fn position(resource: &'static Resource) -> String {
    let uuid = resource.key().read_filter(UUID);
    debug_assert!(matches!(uuid, Some(Value::Uuid(_))));
    cursor::encode(&Order::of_key(resource), &vec![uuid], Consistency::Eventual)
}

fn pattern(form: &str) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(form)).into())
}

fn or_null(kind: Type) -> RefOr<Schema> {
    let either = SchemaType::from_iter([kind, Type::Null]);
    RefOr::T(ObjectBuilder::new().schema_type(either).into())
}
