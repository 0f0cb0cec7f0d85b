// Shared by the two Rust peers: the row, its JSON, and the statements.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

pub const GET: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers where uuid = $1";
pub const LIST: &str = "select uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, \
     parents_or_children_aboard, fare from passengers order by uuid";
pub const CREATE: &str = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
     siblings_or_spouses_aboard, parents_or_children_aboard, fare) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

#[derive(Serialize)]
pub struct Passenger {
    pub uuid: Uuid,
    #[serde(flatten)]
    pub details: Details,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    pub survived: bool,
    pub passenger_class: i16,
    pub name: String,
    pub sex: String,
    pub age: Option<f64>,
    pub siblings_or_spouses_aboard: i32,
    pub parents_or_children_aboard: i32,
    pub fare: f64,
}

impl From<Row> for Passenger {
    fn from(row: Row) -> Self {
        Self {
            uuid: row.get(0),
            details: Details {
                survived: row.get(1),
                passenger_class: row.get(2),
                name: row.get(3),
                sex: row.get(4),
                age: row.get(5),
                siblings_or_spouses_aboard: row.get(6),
                parents_or_children_aboard: row.get(7),
                fare: row.get(8),
            },
        }
    }
}
