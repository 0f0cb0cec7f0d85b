//! Parses a text into records: decodes it, detects the separator in its header line, and splits it.

use encoding_rs::Encoding;

use super::cells::Cells;
use super::encoding::{Text, Undecoded};
use super::fault::{Fault, Location, Malformed};
use super::header_line::HeaderLine;
use super::separator::{SEPARATORS, UNSUPPORTED};
use super::signature::{self, Foreign, SignatureCheck};
use super::splitter::{Sink, Splitter};

/// The parser of a text, which may arrive in chunks of any size.
#[derive(Debug)]
pub struct Records {
    signature: SignatureCheck,
    text: Text,
    /// Until the separator is known.
    header_line: Option<HeaderLine>,
    splitter: Splitter,
}

impl Records {
    /// A parser for this encoding, or UTF-8; a byte order mark overrides both.
    pub fn new(encoding: Option<&'static Encoding>) -> Self {
        Self {
            signature: SignatureCheck::new(false),
            text: Text::new(encoding),
            header_line: Some(HeaderLine::default()),
            splitter: Splitter::new(','),
        }
    }

    /// The name of the encoding.
    pub fn encoding(&self) -> &'static str {
        self.text.encoding()
    }

    /// Whether the text ended with Ctrl-Z, which was ignored.
    pub fn has_end_character(&self) -> bool {
        self.splitter.is_ended
    }

    /// Parses further bytes, and passes each complete record to the sink.
    ///
    /// # Errors
    /// If the text is not valid CSV, or the sink's error; no calls may follow.
    pub fn push<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let text = self.signature.push(bytes).map_err(foreign)?;
        self.decode(&text, false, sink)
    }

    /// Ends the text; its last line may lack a line end.
    ///
    /// # Errors
    /// As [`Records::push`].
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let text = self.signature.finish().map_err(foreign)?;
        self.decode(&text, true, sink)?;
        if let Some(line) = self.header_line.take() {
            self.begin(&line, sink)?;
        }
        self.splitter.finish(sink)
    }

    fn decode<S: Sink>(&mut self, bytes: &[u8], is_last: bool, sink: &mut S) -> Result<(), S::Error> {
        let Self { text, header_line, splitter, .. } = self;
        let pushed = text.push(bytes, is_last, &mut |chunk| push(header_line, splitter, chunk, sink));
        pushed.map_err(|undecoded| match undecoded {
            Undecoded::Refused(error) => error,
            Undecoded::Bytes => {
                if let Some(line) = &self.header_line {
                    // The text before the invalid bytes determines the line and the column.
                    let _ = self.splitter.push(&line.text, &mut Discard);
                }
                self.splitter.malformed(self.splitter.line, Fault::Encoding(self.text.encoding())).into()
            }
        })
    }

    fn begin<S: Sink>(&mut self, line: &HeaderLine, sink: &mut S) -> Result<(), S::Error> {
        begin(&mut self.splitter, line, sink)
    }
}

/// The error for a content that is not text.
fn foreign(foreign: Foreign) -> Malformed {
    Malformed { line: 1, location: Location::Record, fault: Fault::Foreign(foreign) }
}

fn push<S: Sink>(
    header_line: &mut Option<HeaderLine>,
    splitter: &mut Splitter,
    mut text: &str,
    sink: &mut S,
) -> Result<(), S::Error> {
    if let Some(line) = header_line {
        let Some(rest) = line.push(text) else { return Ok(()) };
        text = &text[rest..];
        if let Some(line) = header_line.take() {
            begin(splitter, &line, sink)?;
        }
    }
    splitter.push(text, sink)
}

/// Determines the separator.
fn begin<S: Sink>(splitter: &mut Splitter, line: &HeaderLine, sink: &mut S) -> Result<(), S::Error> {
    if line.text.contains('\0') {
        // UTF-16 without a byte order mark is also valid UTF-8, with many of these.
        splitter.skip(&line.text);
        return Err(Malformed { line: splitter.line, location: Location::Record, fault: Fault::Null }.into());
    }
    if let Some(format) = signature::text_format(&line.text) {
        splitter.skip(&line.text[..line.text.len() - line.text.trim_start().len()]);
        return Err(Malformed { line: splitter.line, location: Location::Record, fault: Fault::Foreign(format) }.into());
    }
    match line.named() {
        Ok(Some(separator)) => {
            splitter.skip(&line.text);
            splitter.separate_by(separator);
            return Ok(());
        }
        Ok(None) => {}
        Err(fault) => {
            splitter.skip(&line.text);
            return Err(Malformed { line: splitter.line, location: Location::Record, fault }.into());
        }
    }
    let found = line.found();
    let fitting: Vec<char> = match found.as_slice() {
        [] | [_] => found.clone(),
        _ => found.iter().copied().filter(|separator| fits(&line.text, *separator, sink)).collect(),
    };
    splitter.separate_by(match (fitting.as_slice(), found.first()) {
        ([first, second, ..], _) => {
            splitter.skip(&line.text);
            let fault = Fault::Separators(*first, *second);
            return Err(Malformed { line: splitter.line, location: Location::Record, fault }.into());
        }
        ([separator], _) | ([], Some(separator)) => *separator,
        ([], None) => match UNSUPPORTED.iter().find(|(separator, _)| is_split(&line.text, *separator, sink)) {
            Some((_, name)) => {
                splitter.skip(&line.text);
                let fault = Fault::UnsupportedSeparator(name);
                return Err(Malformed { line: splitter.line, location: Location::Record, fault }.into());
            }
            None => SEPARATORS[0],
        },
    });
    splitter.push(&line.text, sink)
}

/// Whether a separator splits the line into more than one cell that are known columns.
fn is_split<S: Sink>(line: &str, separator: char, sink: &S) -> bool {
    line.trim().contains(separator) && !fits(line, SEPARATORS[0], sink) && fits(line, separator, sink)
}

fn fits<S: Sink>(line: &str, separator: char, sink: &S) -> bool {
    let mut splitter = Splitter::new(separator);
    let mut header = Header { sink, fits: false };
    let cut = splitter.push(line, &mut header).and_then(|()| splitter.finish(&mut header));
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
struct Discard;

impl Sink for Discard {
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
