//! Records in the database which data sets it was seeded with, so that each is loaded only once.
//!
//! The record and the rows are committed together: a failed seed leaves neither. If several processes start at once, the
//! record's primary key lets only one of them load the data.

use tokio_postgres::{Client, Error, Transaction};

const CLAIM: &str = "insert into seeds (name) values ($1) on conflict do nothing";

/// Begins a transaction in which the caller may load the data set; `None` if it was loaded before.
///
/// The claim takes effect when the caller commits. A second process waits in this function until the first has committed or
/// rolled back.
///
/// # Errors
/// The driver's, when the connection is lost.
pub async fn claim<'a>(client: &'a mut Client, name: &str) -> Result<Option<Transaction<'a>>, Error> {
    let transaction = client.transaction().await?;
    let claimed = transaction.execute(CLAIM, &[&name]).await?;
    Ok((claimed == 1).then_some(transaction))
}
