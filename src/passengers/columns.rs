//! Passengers turned on their side: one array per column, as `unnest` takes them.

use uuid::Uuid;

use super::model::{Passenger, Sex};
use super::patch::MergePatch;
use crate::db::session::Param;

/// The columns of some rows, in the order of the table.
pub struct Columns<'a> {
    uuids: Vec<Uuid>,
    survived: Vec<bool>,
    classes: Vec<i16>,
    names: Vec<&'a str>,
    sexes: Vec<&'static str>,
    ages: Vec<Option<f64>>,
    siblings: Vec<i32>,
    parents: Vec<i32>,
    fares: Vec<f64>,
}

impl<'a> Columns<'a> {
    /// The columns of these rows.
    pub fn of(rows: impl ExactSizeIterator<Item = &'a Passenger<'a>>) -> Self {
        let mut columns = Self {
            uuids: Vec::with_capacity(rows.len()),
            survived: Vec::with_capacity(rows.len()),
            classes: Vec::with_capacity(rows.len()),
            names: Vec::with_capacity(rows.len()),
            sexes: Vec::with_capacity(rows.len()),
            ages: Vec::with_capacity(rows.len()),
            siblings: Vec::with_capacity(rows.len()),
            parents: Vec::with_capacity(rows.len()),
            fares: Vec::with_capacity(rows.len()),
        };
        for Passenger { uuid, details } in rows {
            columns.uuids.push(*uuid);
            columns.survived.push(details.survived);
            columns.classes.push(details.passenger_class);
            columns.names.push(&details.name);
            columns.sexes.push(details.sex.as_str());
            columns.ages.push(details.age);
            columns.siblings.push(details.siblings_or_spouses_aboard);
            columns.parents.push(details.parents_or_children_aboard);
            columns.fares.push(details.fare);
        }
        columns
    }

    /// As a statement's parameters.
    pub fn params(&self) -> [Param<'_>; 9] {
        [
            &self.uuids,
            &self.survived,
            &self.classes,
            &self.names,
            &self.sexes,
            &self.ages,
            &self.siblings,
            &self.parents,
            &self.fares,
        ]
    }
}

/// The columns of some patches; a null leaves a value as it is.
#[derive(Default)]
pub struct PatchColumns<'a> {
    uuids: Vec<Uuid>,
    survived: Vec<Option<bool>>,
    classes: Vec<Option<i16>>,
    names: Vec<Option<&'a str>>,
    sexes: Vec<Option<&'static str>>,
    sets_age: Vec<bool>,
    ages: Vec<Option<f64>>,
    siblings: Vec<Option<i32>>,
    parents: Vec<Option<i32>>,
    fares: Vec<Option<f64>>,
}

impl<'a> PatchColumns<'a> {
    /// The columns of these patches.
    pub fn of(patches: impl Iterator<Item = (Uuid, &'a MergePatch<'a>)>) -> Self {
        let mut columns = Self::default();
        for (uuid, patch) in patches {
            columns.uuids.push(uuid);
            columns.survived.push(patch.survived);
            columns.classes.push(patch.passenger_class);
            columns.names.push(patch.name.as_deref());
            columns.sexes.push(patch.sex.map(Sex::as_str));
            columns.sets_age.push(patch.age.is_some());
            columns.ages.push(patch.age.flatten());
            columns.siblings.push(patch.siblings_or_spouses_aboard);
            columns.parents.push(patch.parents_or_children_aboard);
            columns.fares.push(patch.fare);
        }
        columns
    }

    /// As a statement's parameters.
    pub fn params(&self) -> [Param<'_>; 10] {
        [
            &self.uuids,
            &self.survived,
            &self.classes,
            &self.names,
            &self.sexes,
            &self.sets_age,
            &self.ages,
            &self.siblings,
            &self.parents,
            &self.fares,
        ]
    }
}
