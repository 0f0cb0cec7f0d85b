//! What passengers look like in the OpenAPI document, and the examples in it.

use serde_json::{Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};

use super::model::Details;

/// The group of all operations.
pub(super) const TAG: &str = "Passengers";
/// The example of a key.
pub(super) const UUID: &str = "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10";

/// A passenger as it is stored, with its uuid, or as a client sends it: no member but these.
pub(super) fn shape(stored: bool) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = Details::schema() else { unreachable!("a struct is an object") };
    if stored {
        object.properties.insert_before(0, "uuid".to_owned(), uuid());
        object.required.insert(0, "uuid".to_owned());
    }
    object.description =
        Some(if stored { "A passenger as it is stored." } else { "A passenger as a client sends it." }.to_owned());
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    RefOr::T(Schema::Object(object))
}

/// Any of a passenger's fields.
pub(super) fn changes() -> RefOr<Schema> {
    any_of(shape(false))
}

/// A passenger in a list, which may be asked for some members only.
pub(super) fn listed() -> RefOr<Schema> {
    any_of(shape(true))
}

/// The same with no member that must be there.
fn any_of(whole: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = whole else { unreachable!("a struct is an object") };
    object.required.clear();
    object.description = None;
    RefOr::T(Schema::Object(object))
}

pub(super) fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into())
}

pub(super) fn details() -> Value {
    json!({
        "survived": true, "passengerClass": 2, "name": "Post-Test-Name", "sex": "male", "age": 27.0,
        "siblingsOrSpousesAboard": 0, "parentsOrChildrenAboard": 0, "fare": 13.0
    })
}

/// The example of a stored one.
pub(super) fn stored() -> Value {
    let mut passenger = json!({"uuid": UUID});
    passenger.as_object_mut().expect("an object").extend(details().as_object().expect("an object").clone());
    passenger
}
