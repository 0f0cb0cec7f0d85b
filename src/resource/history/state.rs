//! The values of a row in a history entry: a JSON object whose members are the columns that the table had then.
//!
//! A column added since has its default, a removed one is omitted, and a value that today's rules reject is shown unchanged. No
//! I/O happens here.

use std::collections::HashMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::value::Value;
use crate::db::error::StoreError;

/// A recorded state.
#[derive(Debug)]
pub struct State<'a>(HashMap<String, &'a RawValue>);

impl<'a> State<'a> {
    /// Parses the column `before`.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when it was modified to something else.
    pub fn read(before: &'a str) -> Result<Self, StoreError> {
        serde_json::from_str(before).map(Self).map_err(|_| StoreError::Unreadable { column: "before" })
    }

    /// Appends the row as JSON.
    pub fn write_json(&self, resource: &Resource, uuid: Uuid, out: &mut Vec<u8>) {
        out.extend_from_slice(resource.key().json_key);
        Value::Uuid(uuid).write_json(out);
        for column in resource.fields() {
            out.extend_from_slice(column.json_key);
            match self.value(column) {
                Ok(value) => value.write_json(out),
                Err(raw) => out.extend_from_slice(raw.as_bytes()),
            }
        }
        out.push(b'}');
    }

    /// The values of the columns that a client sets, to restore them.
    ///
    /// # Errors
    /// The first column whose rule no longer allows its value.
    pub fn values<'r>(&self, resource: &'r Resource) -> Result<Vec<Value<'static>>, &'r Column> {
        let value = |column: &'r Column| self.value(column).map(Value::into_owned).map_err(|_| column);
        resource.fields().iter().map(value).collect()
    }

    /// The value of a column, or its JSON text if the rules do not allow it.
    fn value(&self, column: &Column) -> Result<Value<'a>, &'a str> {
        match self.0.get(column.identifier) {
            None => Ok(column.default.clone()),
            Some(raw) => column.read_json(raw.get()).ok_or(raw.get()),
        }
    }
}
