//! Schemas for the OpenAPI document, in the few forms that the API has.

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

/// Refers to a schema added by [`super::describe::Document::named`].
pub fn named(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// Refers to a type added by [`super::describe::Document::schema`].
pub fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// An array of such.
pub fn array_of(items: RefOr<Schema>) -> RefOr<Schema> {
    RefOr::T(ArrayBuilder::new().items(items).into())
}

/// An object with these members; the last of each says whether it is always there.
pub fn object<const N: usize>(members: [(&str, RefOr<Schema>, bool); N]) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object);
    for (name, schema, required) in members {
        object = object.property(name, schema);
        object = if required { object.required(name) } else { object };
    }
    RefOr::T(object.into())
}

/// A text.
pub fn text() -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).into())
}

/// One of several texts.
pub fn one_of(values: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).into())
}

/// A whole number within bounds.
pub fn integer(least: i64, greatest: i64) -> RefOr<Schema> {
    let bounds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(greatest));
    RefOr::T(bounds.into())
}
