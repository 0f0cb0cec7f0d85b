//! Passengers as CSV rows: the headers that are accepted, and how a row becomes a passenger.
//!
//! Accepted headers, whatever their case and punctuation: this project's (`survived,passengerClass,…`, with or without
//! a leading `uuid`) and the well-known Titanic ones (`Survived,Pclass,…,Siblings/Spouses Aboard,…`). A fault names the
//! line, the column and the rule.

use std::borrow::Cow;

use csv::StringRecord;
use uuid::Uuid;

use super::model::{Details, Field, Passenger, check_age, check_class, check_count, check_fare, check_name, check_sex};
use crate::db::copy::TableError;
use crate::db::records::line_of;

/// The header as a person would write it.
const EXPECTED: &str = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare, \
     optionally with uuid";

/// Where each field stands in the file's rows.
#[derive(Debug)]
pub struct Header {
    names: Vec<String>,
    uuid: Option<usize>,
    fields: [usize; Field::ALL.len()],
}

impl Header {
    /// Finds the columns in a header row.
    ///
    /// # Errors
    /// When a column is unknown, doubled or missing.
    pub fn read(record: &StringRecord) -> Result<Self, TableError> {
        let fault = |fault: String| TableError::Header { line: line_of(record), fault, expected: EXPECTED };
        let mut uuid = None;
        let mut fields = [None; Field::ALL.len()];
        for (index, name) in record.iter().enumerate() {
            let slot = match column(name) {
                Some(Column::Uuid) => &mut uuid,
                Some(Column::Field(field)) => &mut fields[field as usize],
                None => return Err(fault(format!("column {name:?} is unknown"))),
            };
            if slot.replace(index).is_some() {
                return Err(fault(format!("column {name:?} stands there twice")));
            }
        }
        let mut places = [0; Field::ALL.len()];
        for field in Field::ALL {
            places[field as usize] =
                fields[field as usize].ok_or_else(|| fault(format!("column {:?} is missing", field.name())))?;
        }
        Ok(Self { names: record.iter().map(str::to_owned).collect(), uuid, fields: places })
    }

    /// Whether rows name their keys.
    pub fn has_uuid(&self) -> bool {
        self.uuid.is_some()
    }

    /// Reads a row; a row without a uuid of its own gets a new one, so that file order is key order.
    ///
    /// # Errors
    /// The first value that breaks its column's rule.
    pub fn passenger<'a>(&self, record: &'a StringRecord) -> Result<Passenger<'a>, TableError> {
        let line = line_of(record);
        let fault = |index: usize, rule| TableError::Value { line, column: self.names[index].clone(), rule };
        let text = |field: Field| record.get(self.fields[field as usize]).unwrap_or_default().trim();
        let broken = |field: Field| fault(self.fields[field as usize], csv_rule(field));
        let number = |field: Field| text(field).parse::<f64>().ok();
        let uuid = match self.uuid {
            None => Uuid::now_v7(),
            Some(index) => {
                Uuid::try_parse(record.get(index).unwrap_or_default()).map_err(|_| fault(index, "must be a uuid"))?
            }
        };
        let count = |field| number(field).and_then(check_count).ok_or_else(|| broken(field));
        let details = Details {
            survived: match text(Field::Survived) {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(broken(Field::Survived)),
            },
            passenger_class: number(Field::PassengerClass)
                .and_then(check_class)
                .ok_or_else(|| broken(Field::PassengerClass))?,
            // A name is taken as it stands, blanks included: what export wrote comes back the same.
            name: record
                .get(self.fields[Field::Name as usize])
                .and_then(check_name)
                .map(Cow::Borrowed)
                .ok_or_else(|| broken(Field::Name))?,
            sex: check_sex(text(Field::Sex)).ok_or_else(|| broken(Field::Sex))?,
            age: match text(Field::Age) {
                "" => None,
                _ => Some(number(Field::Age).and_then(check_age).ok_or_else(|| broken(Field::Age))?),
            },
            siblings_or_spouses_aboard: count(Field::SiblingsOrSpousesAboard)?,
            parents_or_children_aboard: count(Field::ParentsOrChildrenAboard)?,
            fare: number(Field::Fare).and_then(check_fare).ok_or_else(|| broken(Field::Fare))?,
        };
        Ok(Passenger { uuid, details })
    }
}

/// What a value must be in CSV, where it differs from JSON.
fn csv_rule(field: Field) -> &'static str {
    match field {
        Field::Survived => "must be true, false, 1 or 0",
        Field::Sex => "must be male or female",
        Field::Age => "must be between 0 and 130, or empty",
        other => other.rule(),
    }
}

enum Column {
    Uuid,
    Field(Field),
}

/// The column a header cell names; case and punctuation do not count.
fn column(name: &str) -> Option<Column> {
    let key: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Some(Column::Field(match key.as_str() {
        "uuid" => return Some(Column::Uuid),
        "survived" => Field::Survived,
        "passengerclass" | "pclass" => Field::PassengerClass,
        "name" => Field::Name,
        "sex" => Field::Sex,
        "age" => Field::Age,
        "siblingsorspousesaboard" | "siblingsspousesaboard" => Field::SiblingsOrSpousesAboard,
        "parentsorchildrenaboard" | "parentschildrenaboard" => Field::ParentsOrChildrenAboard,
        "fare" => Field::Fare,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::arbitrary;
    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(cells in prop::collection::vec("\\PC{0,12}|-?[0-9]{1,30}|nan|1e999", 9), text in "\\PC{0,80}") {
            let record = StringRecord::from(cells);
            let _ = Header::read(&StringRecord::from(text.split(',').collect::<Vec<_>>())); // a fault is as good
            let names: Vec<_> = ["uuid"].into_iter().chain(Field::ALL.map(Field::name)).collect();
            let header = Header::read(&StringRecord::from(names)).expect("our own header");
            prop_assert!(header.passenger(&record).is_err(), "no record begins with such a uuid");
        }

        #[test]
        fn what_is_written_as_csv_is_read_back_the_same(passenger in arbitrary::passenger()) {
            let details = &passenger.details;
            let mut writer = csv::Writer::from_writer(Vec::new());
            let header = ["uuid"].into_iter().chain(Field::ALL.map(Field::name));
            writer.write_record(header).expect("written");
            let row = [
                passenger.uuid.to_string(),
                details.survived.to_string(),
                details.passenger_class.to_string(),
                details.name.to_string(),
                details.sex.as_str().to_owned(),
                details.age.map(|age| age.to_string()).unwrap_or_default(),
                details.siblings_or_spouses_aboard.to_string(),
                details.parents_or_children_aboard.to_string(),
                details.fare.to_string(),
            ];
            writer.write_record(row).expect("written");
            let bytes = writer.into_inner().expect("flushed");
            let mut reader = csv::Reader::from_reader(bytes.as_slice());
            let header = Header::read(reader.headers().expect("a header")).expect("our own header");
            let record = reader.records().next().expect("a row").expect("valid CSV");
            prop_assert_eq!(header.passenger(&record).expect("it breaks no rule"), passenger);
        }
    }
}
