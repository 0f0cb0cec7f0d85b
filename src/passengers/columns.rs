//! Passengers turned on their side: one array per column, as `unnest` takes them.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::model::Passenger;

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
    pub fn of(rows: &'a [Passenger<'_>]) -> Self {
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
    pub fn params(&self) -> [&(dyn ToSql + Sync); 9] {
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
