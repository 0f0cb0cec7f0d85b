//! Remembers in the database which data sets it was seeded with, so that each is loaded once in its life.
//!
//! The note and the rows commit together: a seed that fails leaves neither. Five processes that start at once meet at
//! the note's primary key, and four of them find it taken.

use tokio_postgres::{Client, Error, Transaction};

const CLAIM: &str = "insert into seeds (name) values ($1) on conflict do nothing";

/// Begins a transaction in which the caller may load the data set; `None` when it was loaded before.
///
/// The claim takes effect when the caller commits. A second process waits in here until the first one has decided.
///
/// # Errors
/// The driver's, when the connection is lost.
pub async fn claim<'a>(client: &'a mut Client, name: &str) -> Result<Option<Transaction<'a>>, Error> {
    let transaction = client.transaction().await?;
    let claimed = transaction.execute(CLAIM, &[&name]).await?;
    Ok((claimed == 1).then_some(transaction))
}
