//! Lists and statistics in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{HttpMethod, ObjectBuilder, RefOr, Schema, Type};

use super::super::routes::{LIST, STATISTICS};
use super::super::schema::{TAG, UUID, listed, stored};
use super::column::{Column, Kind, Value};
use super::cursor;
use super::filter::{operators, truths};
use super::order::Order;
use super::request::{GROUPED, PAGE_MAX};
use crate::http::body::{CSV, JSON, NDJSON};
use crate::http::describe::{Document, Operation, content, header, query};
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, object, text};

const CSV_EXAMPLE: &str = "uuid,survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n\
     0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10,true,2,Post-Test-Name,male,27,0,0,13\n";
const NDJSON_EXAMPLE: &str = "{\"name\":\"Post-Test-Name\",\"age\":27.0}\n";

/// Adds the operations on lists.
pub fn describe(document: &mut Document) {
    let list = Operation::new(TAG, "listPassengers", "List passengers")
        .says(
            "Conditions, order and columns in PostgREST's grammar; a condition's parameter may come more than once. Without \
             `limit`, `/v1/passengers` answers a page of 100 and `/passengerlist` everything, streamed. `select` leaves the \
             other members out. `Link` leads to the pages on either side.",
        )
        .with(conditions())
        .with([
            query("select", columns(&names()), "the columns of the answer, in this order", "name,age"),
            query("order", order(), "columns, each with its direction; the key breaks ties", "age.desc.nullslast,name"),
            query("limit", integer(1, PAGE_MAX as i64), "most passengers in the answer", 100),
            query("after", cursor(), "the page behind this position; a cursor of the same order, from `Link`", position()),
            query("before", cursor(), "the page that ends before this position", position()),
            header("Prefer", text(), "`count=exact` or `count=estimated`: how many there are in all", "count=exact"),
        ])
        .answers(
            200,
            "The passengers.",
            [
                (JSON, content(array_of(listed()), json!([stored()]))),
                (CSV, content(text(), CSV_EXAMPLE)),
                (NDJSON, content(text(), NDJSON_EXAMPLE)),
            ],
        )
        .header("Link", text(), "`rel=\"next\"` and `rel=\"prev\"`: the pages on either side, where there is more")
        .header("Content-Range", text(), "with `Prefer: count`: `0-99/1309`, or `*/1309` behind a cursor")
        .header("Preference-Applied", text(), "`count=exact` or `count=estimated`, if that was preferred")
        .fails([Code::InvalidQuery, Code::NotAcceptable]);
    document.operation(HttpMethod::Get, LIST, &list);

    let group = object([
        ("count", integer(0, i64::MAX), true),
        ("survivors", integer(0, i64::MAX), true),
        ("survivalRate", or_null(Type::Number), true),
        ("meanAge", or_null(Type::Number), true),
        ("meanFare", or_null(Type::Number), true),
    ]);
    let statistics = Operation::new(TAG, "passengerStatistics", "Count passengers in groups")
        .says("Count, survivors, survival rate and means of each group, which has the columns of `by` besides.")
        .with(conditions())
        .with([query("by", columns(GROUPED), "what the members of a group have in common", "passengerClass,sex")])
        .answers(
            200,
            "The groups, in the order of these columns.",
            [(
                JSON,
                content(
                    object([("groups", array_of(group), true)]),
                    json!({"groups": [{"passengerClass": 1, "sex": "female", "count": 94, "survivors": 91,
                        "survivalRate": 0.968, "meanAge": 34.6, "meanFare": 106.1}]}),
                ),
            )],
        )
        .fails([Code::InvalidQuery]);
    document.operation(HttpMethod::Get, STATISTICS, &statistics);
}

fn conditions() -> Vec<Parameter> {
    let column = |column: Column| {
        let meaning = format!(
            "a condition: {}, each also behind `not.`; `is` takes {}",
            operators(column.kind()),
            truths(column.kind())
        );
        query(column.name(), condition(column), &meaning, example(column))
    };
    let group = |name, meaning| {
        let form = r"^\([a-zA-Z]+\.[a-z]+\.[^()]*\)$";
        query(name, pattern(form), meaning, "(age.is.null,fare.gt.50)")
    };
    let mut parameters: Vec<Parameter> = Column::ALL.map(column).into();
    parameters.extend([
        group("or", "one of these conditions holds; groups may stand in groups"),
        group("and", "all of these conditions hold"),
        group("not.or", "none of these conditions holds"),
        group("not.and", "one of these conditions does not hold"),
    ]);
    parameters
}

fn condition(column: Column) -> RefOr<Schema> {
    let value = match (column.kind(), column.domain()) {
        (_, Some(domain)) => domain.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"),
        (Kind::Uuid, _) => "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}".to_owned(),
        (Kind::Whole, _) => "-?[0-9]{1,9}".to_owned(),
        (Kind::Number, _) => r"-?[0-9]{1,9}(\.[0-9]{1,9})?".to_owned(),
        _ => "[^\"(),\\\\\\x00]+".to_owned(),
    };
    let (comparisons, truths) = match column.kind() {
        Kind::Bool => ("eq|neq", "null|not_null|true|false"),
        Kind::Text => ("eq|neq|gt|gte|lt|lte|like|ilike", "null|not_null"),
        _ => ("eq|neq|gt|gte|lt|lte", "null|not_null"),
    };
    pattern(&format!(r"^(not\.)?(({comparisons})\.({value})|in\.\(({value})(,({value}))*\)|is\.({truths}))$"))
}

fn example(column: Column) -> String {
    match (column.kind(), column.domain()) {
        (_, Some(domain)) => format!("in.({})", domain.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        (Kind::Uuid, _) => format!("gte.{UUID}"),
        (Kind::Text, _) => "ilike.*a*".to_owned(),
        _ => "gte.0".to_owned(),
    }
}

fn names() -> [&'static str; Column::ALL.len()] {
    Column::ALL.map(Column::name)
}

fn columns(names: &[&str]) -> RefOr<Schema> {
    let name = names.join("|");
    pattern(&format!("^({name})(,({name}))*$"))
}

fn order() -> RefOr<Schema> {
    let key = format!(r"({})(\.(asc|desc))?(\.nulls(first|last))?", names().join("|"));
    pattern(&format!("^{key}(,{key})*$"))
}

fn cursor() -> RefOr<Schema> {
    pattern("^[A-Za-z0-9_-]+$")
}

/// A cursor of the usual order.
fn position() -> String {
    let uuid = Column::Uuid.read(UUID);
    debug_assert!(matches!(uuid, Some(Value::Uuid(_))));
    cursor::encode(&Order::default(), &vec![uuid])
}

fn pattern(form: &str) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).pattern(Some(form)).into())
}

fn or_null(kind: Type) -> RefOr<Schema> {
    let either = SchemaType::from_iter([kind, Type::Null]);
    RefOr::T(ObjectBuilder::new().schema_type(either).into())
}
