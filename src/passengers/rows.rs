//! Reading rows of the table.

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::model::{Details, Passenger, Sex, check_sex};
use crate::db::error::StoreError;

/// A passenger as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As JSON.
    pub document: Bytes,
    /// The version of this state.
    pub version: i64,
}

/// A row of the statements that select every column, as a passenger that borrows the row's text.
///
/// # Errors
/// [`StoreError::Internal`] when the columns are not those of the table.
pub fn passenger(row: &Row) -> Result<Passenger<'_>, StoreError> {
    let read = || -> Result<_, tokio_postgres::Error> {
        Ok(Passenger {
            uuid: row.try_get(0)?,
            details: Details {
                survived: row.try_get(1)?,
                passenger_class: row.try_get(2)?,
                name: row.try_get::<_, &str>(3)?.into(),
                sex: row.try_get(4)?,
                age: row.try_get(5)?,
                siblings_or_spouses_aboard: row.try_get(6)?,
                parents_or_children_aboard: row.try_get(7)?,
                fare: row.try_get(8)?,
            },
        })
    };
    read().map_err(StoreError::from)
}

/// The same failure for every item of a batch.
pub fn all_failed<O>(count: usize, error: &StoreError) -> Vec<Result<O, StoreError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

impl<'a> FromSql<'a> for Sex {
    /// A value that the constraint should have kept out is an error of its row, and no panic.
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let text = <&str>::from_sql(of, raw)?;
        check_sex(text).ok_or_else(|| format!("{text:?} is no sex that is known").into())
    }

    fn accepts(of: &Type) -> bool {
        <&str as FromSql>::accepts(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_sex_is_an_error_of_its_row() {
        assert_eq!(Sex::from_sql(&Type::TEXT, b"female").expect("known"), Sex::Female);
        assert_eq!(
            Sex::from_sql(&Type::TEXT, b"Female").expect_err("unknown").to_string(),
            "\"Female\" is no sex that is known"
        );
    }
}
