//! Reads a text from a file in chunks.

use std::io::{ErrorKind, Read};

use encoding_rs::Encoding;

use super::records::Records;
use super::splitter::Sink;

/// Bytes per read.
const READ_BYTES: usize = 64 * 1024;

/// Reads a text to its end; `each` is called after every chunk and returns false to stop.
///
/// # Errors
/// The sink's error, or that the text cannot be read.
pub fn read<S: Sink<Error: From<std::io::Error>>>(
    mut text: impl Read,
    encoding: Option<&'static Encoding>,
    sink: &mut S,
    mut each: impl FnMut(&mut S, usize) -> bool,
) -> Result<Records, S::Error> {
    let mut records = Records::new(encoding);
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let length = match text.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        records.push(&chunk[..length], sink)?;
        if !each(sink, length) {
            return Ok(records);
        }
    }
    records.finish(sink)?;
    Ok(records)
}

/// The records of a complete text.
#[cfg(test)]
pub fn cells(text: &[u8]) -> Vec<super::cells::Cells> {
    use super::cells::Cells;

    #[derive(Default)]
    struct All(Vec<Cells>);

    impl Sink for All {
        type Error = anyhow::Error;

        fn fits(&self, _: &Cells) -> bool {
            true
        }

        fn record(&mut self, record: &Cells) -> anyhow::Result<()> {
            self.0.push(record.clone());
            Ok(())
        }
    }

    let mut all = All::default();
    read(text, None, &mut all, |_, _| true).expect("valid CSV");
    all.0
}
