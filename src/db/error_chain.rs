//! Formats an error and its causes as one line.

use std::error::Error;

use tokio_postgres::error::DbError;

/// Formats an error and its causes, each of them once: some library errors already contain the text of their cause, and some
/// errors of this crate contain PostgreSQL's message.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let database = match cause.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => error.as_db_error(),
            None => cause.downcast_ref::<DbError>(),
        };
        let cause_text = cause.to_string();
        if !text.contains(database.map_or(cause_text.as_str(), DbError::message)) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::error_chain;

    #[test]
    fn a_cause_is_printed_once() {
        let inner = || std::io::Error::other("the disk is full");
        let chain = |error: anyhow::Error| error_chain(error.as_ref());
        assert_eq!(chain(anyhow!(inner()).context("cannot write")), "cannot write: the disk is full");
        assert_eq!(chain(anyhow!(inner()).context("cannot write: the disk is full")), "cannot write: the disk is full");
        assert_eq!(chain(anyhow!("alone")), "alone");
    }
}
