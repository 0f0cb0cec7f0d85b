//! What subcommands write to standard output.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use tokio_postgres::error::DbError;

/// What became of rows or a document on standard output. A reader that has gone, as `head` does, has seen enough.
///
/// # Errors
/// When the output cannot be written.
pub fn written(outcome: std::io::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write the output"),
    }
}

/// A failure and its causes in one line, each of them once: some errors of libraries tell their cause themselves, and some of
/// ours tell what PostgreSQL says.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
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

/// Says on standard output what was done; it is done whether or not anybody reads this.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::told;

    #[test]
    fn a_cause_is_told_once() {
        let inner = || std::io::Error::other("the disk is full");
        assert_eq!(told(&anyhow!(inner()).context("cannot write")), "cannot write: the disk is full");
        assert_eq!(told(&anyhow!(inner()).context("cannot write: the disk is full")), "cannot write: the disk is full");
        assert_eq!(told(&anyhow!("alone")), "alone");
    }
}
