//! The values of a row as an entry keeps them: a JSON object whose members are the columns as the table had them then.
//!
//! A column that came later has its default, one that is gone is left out, and a value that today's rules would refuse is shown
//! as it was. No I/O happens here.

use std::collections::HashMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::column::Column;
use super::super::definition::Resource;
use super::super::value::Value;
use crate::db::error::StoreError;

/// A kept state.
#[derive(Debug)]
pub struct State<'a>(HashMap<String, &'a RawValue>);

impl<'a> State<'a> {
    /// Reads what the column `before` holds.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when somebody has put something else there.
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

    /// The values of the columns that a client sets, to be stored again.
    ///
    /// # Errors
    /// The first column whose rule does not allow its value any more.
    pub fn values<'r>(&self, resource: &'r Resource) -> Result<Vec<Value<'static>>, &'r Column> {
        let value = |column: &'r Column| self.value(column).map(Value::into_owned).map_err(|_| column);
        resource.fields().iter().map(value).collect()
    }

    /// The value of a column, or its text when the rules do not allow it.
    fn value(&self, column: &Column) -> Result<Value<'a>, &'a str> {
        match self.0.get(column.identifier) {
            None => Ok(column.default.clone()),
            Some(raw) => column.read_json(raw.get()).ok_or(raw.get()),
        }
    }
}
