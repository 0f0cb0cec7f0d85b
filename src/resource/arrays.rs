//! The values of many rows as statement parameters: one array per column, for `unnest`.

use uuid::Uuid;

use super::definition::Resource;
use super::row::{Patch, Record};
use super::value::{Array, Value};
use crate::db::session::Param;

/// The columns of a set of rows, in table order.
pub struct Columns<'a> {
    uuids: Vec<Uuid>,
    arrays: Vec<Array<'a>>,
}

impl<'a> Columns<'a> {
    /// Transposes rows into columns.
    pub fn of(resource: &Resource, rows: &[&'a Record<'a>]) -> Self {
        let array = |index: usize| Array(rows.iter().map(|row| Some(&row.values[index])).collect());
        Self {
            uuids: rows.iter().map(|row| row.uuid).collect(),
            arrays: (0..resource.fields().len()).map(array).collect(),
        }
    }

    /// Returns the statement parameters.
    pub fn params(&self) -> Vec<Param<'_>> {
        let uuids: Param<'_> = &self.uuids;
        std::iter::once(uuids).chain(self.arrays.iter().map(|array| array as Param<'_>)).collect()
    }
}

const TRUE: Value<'static> = Value::Boolean(true);
const FALSE: Value<'static> = Value::Boolean(false);

/// The columns of a set of patches; null leaves a value unchanged. A nullable column is preceded by a flag that states whether
/// it is set.
pub struct PatchColumns<'a> {
    uuids: Vec<Uuid>,
    arrays: Vec<Array<'a>>,
}

impl<'a> PatchColumns<'a> {
    /// Transposes patches into columns.
    pub fn of(resource: &Resource, patches: &[(Uuid, &'a Patch<'a>)]) -> Self {
        let mut arrays = Vec::new();
        for column in resource.fields() {
            let index = column.position - 1;
            if column.nullable {
                let flag = |patch: &Patch<'_>| Some(if patch[index].is_some() { &TRUE } else { &FALSE });
                arrays.push(Array(patches.iter().map(|(_, patch)| flag(patch)).collect()));
            }
            arrays.push(Array(patches.iter().map(|(_, patch)| patch[index].as_ref()).collect()));
        }
        Self { uuids: patches.iter().map(|(uuid, _)| *uuid).collect(), arrays }
    }

    /// Returns the statement parameters.
    pub fn params(&self) -> Vec<Param<'_>> {
        let uuids: Param<'_> = &self.uuids;
        std::iter::once(uuids).chain(self.arrays.iter().map(|array| array as Param<'_>)).collect()
    }
}
