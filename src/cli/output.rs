//! Standard output of subcommands.

use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Converts the outcome of writing to standard output. If the reader has closed a pipe, as `head` does, that is not an error.
///
/// # Errors
/// If the output cannot be written.
pub fn written(outcome: std::io::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write the output"),
    }
}

/// Prints a result to standard output; a failure to print is ignored, because the work is done.
pub fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints rows in columns.
pub fn print_table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        print_line(cells.join("  ").trim_end());
    }
}
