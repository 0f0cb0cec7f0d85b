//! Many rows as a statement's parameters: one array per column, as `unnest` takes them.

use uuid::Uuid;

use super::definition::Resource;
use super::row::{Patch, Record};
use super::value::{Array, Value};
use crate::db::session::Param;

/// The columns of some rows, in the order of the table.
pub struct Columns<'a> {
    uuids: Vec<Uuid>,
    arrays: Vec<Array<'a>>,
}

impl<'a> Columns<'a> {
    /// The columns of these rows.
    pub fn of(resource: &Resource, rows: &[&'a Record<'a>]) -> Self {
        let array = |place: usize| Array(rows.iter().map(|row| Some(&row.values[place])).collect());
        Self {
            uuids: rows.iter().map(|row| row.uuid).collect(),
            arrays: (0..resource.fields().len()).map(array).collect(),
        }
    }

    /// As a statement's parameters.
    pub fn params(&self) -> Vec<Param<'_>> {
        let uuids: Param<'_> = &self.uuids;
        std::iter::once(uuids).chain(self.arrays.iter().map(|array| array as Param<'_>)).collect()
    }
}

const TRUE: Value<'static> = Value::Boolean(true);
const FALSE: Value<'static> = Value::Boolean(false);

/// The columns of some patches; a null leaves a value as it is. A column that may be null has a flag in front, which says
/// whether it is set.
pub struct PatchColumns<'a> {
    uuids: Vec<Uuid>,
    arrays: Vec<Array<'a>>,
}

impl<'a> PatchColumns<'a> {
    /// The columns of these patches.
    pub fn of(resource: &Resource, patches: &[(Uuid, &'a Patch<'a>)]) -> Self {
        let mut arrays = Vec::new();
        for column in resource.fields() {
            let place = column.position - 1;
            if column.nullable {
                let flag = |patch: &Patch<'_>| Some(if patch[place].is_some() { &TRUE } else { &FALSE });
                arrays.push(Array(patches.iter().map(|(_, patch)| flag(patch)).collect()));
            }
            arrays.push(Array(patches.iter().map(|(_, patch)| patch[place].as_ref()).collect()));
        }
        Self { uuids: patches.iter().map(|(uuid, _)| *uuid).collect(), arrays }
    }

    /// As a statement's parameters.
    pub fn params(&self) -> Vec<Param<'_>> {
        let uuids: Param<'_> = &self.uuids;
        std::iter::once(uuids).chain(self.arrays.iter().map(|array| array as Param<'_>)).collect()
    }
}
