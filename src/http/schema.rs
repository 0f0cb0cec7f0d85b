//! Schemas for the OpenAPI document.

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

/// References a schema added by [`super::describe::Document::named`].
pub fn named(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// References a type added by [`super::describe::Document::schema`].
pub fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

/// An array of these items.
pub fn array_of(items: RefOr<Schema>) -> RefOr<Schema> {
    RefOr::T(ArrayBuilder::new().items(items).into())
}

/// An object with these members; the last element of each states whether it is required.
pub fn object<const N: usize>(members: [(&str, RefOr<Schema>, bool); N]) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object);
    for (name, schema, required) in members {
        object = object.property(name, schema);
        object = if required { object.required(name) } else { object };
    }
    RefOr::T(object.into())
}

/// A string.
pub fn text() -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).into())
}

/// One of several strings.
pub fn one_of(values: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).into())
}

/// An integer within bounds.
pub fn integer(least: i64, greatest: i64) -> RefOr<Schema> {
    let bounds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(Some(greatest));
    RefOr::T(bounds.into())
}
