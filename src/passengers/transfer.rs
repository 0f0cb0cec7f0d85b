//! Passengers in bulk: the statements and values of `COPY`, and the seed. `db::copy` moves them.

use csv::StringRecord;

use super::csv::Header;
use super::model::Passenger;
use crate::db::copy::{BinaryRow, Table, TableError};

impl Table for Header {
    const NAME: &'static str = "passengers";

    const COPY_IN: &'static str = "copy passengers (uuid, survived, passenger_class, name, sex, age, \
         siblings_or_spouses_aboard, parents_or_children_aboard, fare) from stdin (format binary)";

    /// The same columns and order that import reads. A boolean as it is would be `t` or `f`; the cast to text costs a
    /// row more than the case.
    const COPY_OUT: &'static str = "copy (select uuid, case when survived then 'true' else 'false' end as survived, \
         passenger_class as \"passengerClass\", name, sex, age, \
         siblings_or_spouses_aboard as \"siblingsOrSpousesAboard\", \
         parents_or_children_aboard as \"parentsOrChildrenAboard\", fare from passengers order by uuid) \
         to stdout (format csv, header true)";

    /// The 891 passengers with a known record.
    const SEED: &'static [u8] = include_bytes!("../../data/passengers.csv");

    fn read_header(record: &StringRecord) -> Result<Self, TableError> {
        Self::read(record)
    }

    fn put(&self, record: &StringRecord, row: &mut BinaryRow<'_>) -> Result<(), TableError> {
        put(&self.passenger(record)?, row);
        Ok(())
    }
}

/// Writes a passenger in the order of [`Header::COPY_IN`](Table::COPY_IN).
pub fn put(passenger: &Passenger<'_>, row: &mut BinaryRow<'_>) {
    let details = &passenger.details;
    row.put(Some(passenger.uuid.as_bytes()));
    row.put(Some(&[u8::from(details.survived)]));
    row.put(Some(&details.passenger_class.to_be_bytes()));
    row.put(Some(details.name.as_bytes()));
    row.put(Some(details.sex.as_str().as_bytes()));
    row.put(details.age.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    row.put(Some(&details.siblings_or_spouses_aboard.to_be_bytes()));
    row.put(Some(&details.parents_or_children_aboard.to_be_bytes()));
    row.put(Some(&details.fare.to_be_bytes()));
}
