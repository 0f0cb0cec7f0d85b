//! What subcommands write to standard output.

use std::io::{ErrorKind, Write};

use anyhow::Context;

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

/// Says on standard output what was done; it is done whether or not anybody reads this.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
