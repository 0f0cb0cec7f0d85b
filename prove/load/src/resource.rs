//! The resources of prove/ledger.py: each change carries its number in three columns, so that half a change is visible.

use serde_json::Value;

#[derive(Clone, Copy, PartialEq)]
pub enum Resource {
    Passengers,
    Parcels,
}

pub const RESOURCES: [Resource; 2] = [Resource::Passengers, Resource::Parcels];

impl Resource {
    pub fn path(self) -> &'static str {
        match self {
            Resource::Passengers => "/v1/passengers",
            Resource::Parcels => "/v1/parcels",
        }
    }

    /// The members that a change sets; a whole body has further ones.
    fn changed(self, word: &str, number: u64) -> String {
        match self {
            Resource::Passengers => {
                format!(r#""name":"{word} {number}","fare":{number}.0,"siblingsOrSpousesAboard":{number}"#)
            }
            Resource::Parcels => format!(r#""name":"{word} {number}","pieces":{number},"weight":"{number}.25""#),
        }
    }

    /// A merge patch.
    pub fn patch(self, word: &str, number: u64) -> String {
        format!("{{{}}}", self.changed(word, number))
    }

    /// A complete row.
    pub fn body(self, word: &str, number: u64) -> String {
        let fixed = match self {
            Resource::Passengers => {
                r#""survived":true,"passengerClass":2,"sex":"female","age":null,"parentsOrChildrenAboard":0"#
            }
            Resource::Parcels => r#""sender":null"#,
        };
        format!("{{{fixed},{}}}", self.changed(word, number))
    }

    /// Whether all columns of a row were written by one change.
    pub fn is_whole(self, row: &Value) -> bool {
        let Some(number) = row["name"].as_str().and_then(number_of) else { return false };
        match self {
            Resource::Passengers => {
                row["fare"].as_f64() == Some(number as f64) && row["siblingsOrSpousesAboard"].as_u64() == Some(number)
            }
            Resource::Parcels => {
                row["pieces"].as_u64() == Some(number) && row["weight"].as_str() == Some(&format!("{number}.25"))
            }
        }
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit(' ').next()?.parse().ok()
}
