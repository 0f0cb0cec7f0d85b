//! Asking PostgreSQL for one value.

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Error};

/// The first value of the only row.
///
/// # Errors
/// When the statement is refused, or the connection lost.
pub async fn one<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> Result<T, Error> {
    let row = client.query_one(sql, &[]).await?;
    row.try_get(0)
}
