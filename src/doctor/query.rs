//! Queries of a single value, and quoted identifiers.

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Error};

/// The first value of the only row.
///
/// # Errors
/// If the statement is rejected, or the connection is lost.
pub async fn one<T: for<'a> FromSql<'a>>(client: &Client, sql: &str) -> Result<T, Error> {
    let row = client.query_one(sql, &[]).await?;
    row.try_get(0)
}

/// Quotes an identifier if necessary.
pub fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
