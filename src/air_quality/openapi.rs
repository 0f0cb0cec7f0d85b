//! Air quality in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{HttpMethod, KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};

use super::model::MEASURES;
use super::routes::LIST;
use crate::http::describe::{Document, Operation, content, query};
use crate::http::format::Format;
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, one_of, text};

const CSV: &str =
    "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5\n2016-10-01T00:00:00.006Z,aq_jaen,5.4,51.8,0.7,48.4,,9.5\n";

/// Adds the one operation on readings.
pub fn describe(document: &mut Document) {
    let list = Operation::new("Air quality", "listAirQuality", "List readings by station")
        .description(
            "Stations are ordered by name, readings by time; null means not measured. Concentrations are µg/m³, but mg/m³ for \
            CO. A request for more than 100,000 readings is rejected.",
        )
        .with([
            query(
                "entity",
                text(),
                "up to 50 stations, separated by commas; names consist of letters, digits, blanks and _ . : -",
                "aq_jaen",
            ),
            query("from", text(), "readings at this time or later; UTC unless it has an offset or a time zone", "2016-10-01"),
            query("to", text(), "readings before this time", "2036-10-02T00:00:00Z"),
            query("format", one_of(["json", "csv"]), "overrides the header Accept", "json"),
        ])
        .response(
            200,
            "The readings.",
            [(Format::Json.media_type(), content(body(), example())), (Format::Csv.media_type(), content(text(), CSV))],
        )
        .header("X-Cache", one_of(["HIT", "MISS"]), "whether the response came from the cache")
        .header("Age", integer(0, i64::from(i32::MAX)), "seconds since the response was built")
        .problems([Code::InvalidQuery, Code::NotAcceptable]);
    document.operation(HttpMethod::Get, LIST, &list);
}

fn body() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    let time = ObjectBuilder::new().schema_type(Type::String).format(Some(format));
    let mut reading = ObjectBuilder::new().schema_type(Type::Object).property("timestamp", time).required("timestamp");
    for measure in MEASURES {
        let value = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Number, Type::Null]));
        reading = reading.property(measure, value).required(measure);
    }
    let station = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("id", text())
        .required("id")
        .property("values", array_of(RefOr::T(reading.into())))
        .required("values");
    let body = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("cache", ObjectBuilder::new().schema_type(Type::Boolean))
        .required("cache")
        .property("entities", array_of(RefOr::T(station.into())))
        .required("entities");
    RefOr::T(body.into())
}

fn example() -> serde_json::Value {
    json!({"cache": false, "entities": [{"id": "aq_jaen", "values": [{
        "timestamp": "2016-10-01T00:00:00.006Z", "so2": 5.4, "no2": 51.8, "co": 0.7, "o3": 48.4, "pm10": null, "pm2_5": 9.5
    }]}]})
}
