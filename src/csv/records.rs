//! Parses a text into records: decodes it, detects the separator in its header line, and splits it.

use encoding_rs::Encoding;

use super::cells::Cells;
use super::cutter::{Cutter, Sink};
use super::encoding::{Text, Undecoded};
use super::fault::{Fault, Malformed, Place};
use super::header_line::HeaderLine;
use super::opening::{Foreign, Opening};
use super::separator::SEPARATORS;

/// The parser of a text, which may arrive in chunks of any size.
#[derive(Debug)]
pub struct Records {
    opening: Opening,
    text: Text,
    /// Until the separator is known.
    header_line: Option<HeaderLine>,
    cutter: Cutter,
}

impl Records {
    /// A parser for this encoding, or UTF-8; a byte order mark overrides both.
    pub fn new(encoding: Option<&'static Encoding>) -> Self {
        Self {
            opening: Opening::new(false),
            text: Text::new(encoding),
            header_line: Some(HeaderLine::default()),
            cutter: Cutter::new(','),
        }
    }

    /// The name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.text.encoding()
    }

    /// Whether the text ended with Ctrl-Z, which was ignored.
    pub fn has_end_character(&self) -> bool {
        self.cutter.is_ended
    }

    /// Parses further bytes, and passes each complete record to the sink.
    ///
    /// # Errors
    /// If the text is not valid CSV, or the sink's error; no calls may follow.
    pub fn push<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let text = self.opening.push(bytes).map_err(foreign)?;
        self.decode(&text, false, sink)
    }

    /// Ends the text; its last line may lack a line end.
    ///
    /// # Errors
    /// As [`Records::push`].
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let text = self.opening.finish().map_err(foreign)?;
        self.decode(&text, true, sink)?;
        if let Some(line) = self.header_line.take() {
            self.begin(&line, sink)?;
        }
        self.cutter.finish(sink)
    }

    fn decode<S: Sink>(&mut self, bytes: &[u8], is_last: bool, sink: &mut S) -> Result<(), S::Error> {
        let Self { text, header_line, cutter, .. } = self;
        let pushed = text.push(bytes, is_last, &mut |chunk| push(header_line, cutter, chunk, sink));
        pushed.map_err(|undecoded| match undecoded {
            Undecoded::Refused(error) => error,
            Undecoded::Bytes => {
                if let Some(line) = &self.header_line {
                    // The text before the invalid bytes determines the line and the column.
                    let _ = self.cutter.push(&line.text, &mut Nobody);
                }
                self.cutter.malformed(self.cutter.line, Fault::Encoding(self.text.encoding())).into()
            }
        })
    }

    fn begin<S: Sink>(&mut self, line: &HeaderLine, sink: &mut S) -> Result<(), S::Error> {
        begin(&mut self.cutter, line, sink)
    }
}

/// The error for a content that is not text.
fn foreign(foreign: Foreign) -> Malformed {
    Malformed { line: 1, place: Place::Record, fault: Fault::Foreign(foreign) }
}

fn push<S: Sink>(
    header_line: &mut Option<HeaderLine>,
    cutter: &mut Cutter,
    mut text: &str,
    sink: &mut S,
) -> Result<(), S::Error> {
    if let Some(line) = header_line {
        let Some(rest) = line.push(text) else { return Ok(()) };
        text = &text[rest..];
        if let Some(line) = header_line.take() {
            begin(cutter, &line, sink)?;
        }
    }
    cutter.push(text, sink)
}

/// Determines the separator.
fn begin<S: Sink>(cutter: &mut Cutter, line: &HeaderLine, sink: &mut S) -> Result<(), S::Error> {
    if line.text.contains('\0') {
        // UTF-16 without a byte order mark is also valid UTF-8, with many of these.
        cutter.skip(&line.text);
        return Err(Malformed { line: cutter.line, place: Place::Record, fault: Fault::Null }.into());
    }
    match line.named() {
        Ok(Some(separator)) => {
            cutter.skip(&line.text);
            cutter.separate_by(separator);
            return Ok(());
        }
        Ok(None) => {}
        Err(fault) => {
            cutter.skip(&line.text);
            return Err(Malformed { line: cutter.line, place: Place::Record, fault }.into());
        }
    }
    let found = line.found();
    let fitting: Vec<char> = match found.as_slice() {
        [] | [_] => found.clone(),
        _ => found.iter().copied().filter(|separator| fits(&line.text, *separator, sink)).collect(),
    };
    cutter.separate_by(match (fitting.as_slice(), found.first()) {
        ([first, second, ..], _) => {
            cutter.skip(&line.text);
            let fault = Fault::Separators(*first, *second);
            return Err(Malformed { line: cutter.line, place: Place::Record, fault }.into());
        }
        ([separator], _) | ([], Some(separator)) => *separator,
        ([], None) => SEPARATORS[0],
    });
    cutter.push(&line.text, sink)
}

fn fits<S: Sink>(line: &str, separator: char, sink: &S) -> bool {
    let mut cutter = Cutter::new(separator);
    let mut header = Header { sink, fits: false };
    let cut = cutter.push(line, &mut header).and_then(|()| cutter.finish(&mut header));
    cut.is_ok() && header.fits
}

/// Tests whether a header fits, and ignores records.
struct Header<'a, S> {
    sink: &'a S,
    fits: bool,
}

impl<S: Sink> Sink for Header<'_, S> {
    type Error = Malformed;

    fn fits(&self, header: &Cells) -> bool {
        self.sink.fits(header)
    }

    fn record(&mut self, record: &Cells) -> Result<(), Malformed> {
        self.fits = self.fits(record);
        Ok(())
    }
}

/// Ignores all records.
struct Nobody;

impl Sink for Nobody {
    type Error = Malformed;

    fn fits(&self, _: &Cells) -> bool {
        false
    }

    fn record(&mut self, _: &Cells) -> Result<(), Malformed> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
