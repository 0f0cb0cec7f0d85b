//! A failure and its causes in one line.

use std::error::Error;

use tokio_postgres::error::DbError;

/// An error and its causes, each of them once: some errors of libraries tell their cause themselves, and some of ours tell
/// what PostgreSQL says.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let database = match cause.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => error.as_db_error(),
            None => cause.downcast_ref::<DbError>(),
        };
        let said = cause.to_string();
        if !text.contains(database.map_or(said.as_str(), DbError::message)) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::told;

    #[test]
    fn a_cause_is_told_once() {
        let inner = || std::io::Error::other("the disk is full");
        let told = |error: anyhow::Error| told(error.as_ref());
        assert_eq!(told(anyhow!(inner()).context("cannot write")), "cannot write: the disk is full");
        assert_eq!(told(anyhow!(inner()).context("cannot write: the disk is full")), "cannot write: the disk is full");
        assert_eq!(told(anyhow!("alone")), "alone");
    }
}
