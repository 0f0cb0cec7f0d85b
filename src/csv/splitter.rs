//! Splits text into records (RFC 4180), strictly: malformed quoting is refused, never guessed.
//!
//! PostgreSQL's `COPY` also refuses an unclosed quote, but accepts text after a closing quote and a quote inside an unquoted
//! value literally. Here both are errors, because a missing or stray quote looks like that when a later quote seems to close
//! it: rows would merge into one value. Spaces and tabs between a quote and a separator belong to neither. Lines end in LF,
//! CRLF or CR; blank lines are skipped. Only one record is kept in memory, and its size is limited.

use super::cells::Cells;
use super::fault::{Fault, Location, Malformed, RECORD_MAX_BYTES, VALUES_MAX};

/// Marks the end of a text in CP/M and its successors.
const CTRL_Z: &str = "\u{1a}";

/// Receives the records of a text; the first one is the header.
pub trait Sink {
    /// Why a record is refused.
    type Error: From<Malformed>;

    /// Returns true if this is a header with known columns; called if more than one separator is possible.
    fn fits(&self, header: &Cells) -> bool;

    /// Receives a record.
    ///
    /// # Errors
    /// If the record is invalid; no calls may follow.
    fn record(&mut self, record: &Cells) -> Result<(), Self::Error>;
}

/// The parser state within a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a record.
    Record,
    /// At the start of a value.
    Value,
    /// In spaces or tabs at the start of a value.
    Blank,
    /// In an unquoted value.
    Unquoted,
    /// In a quoted value.
    Quoted,
    /// After a quote in a quoted value: its end, or the first of a doubled quote.
    Quote,
    /// In spaces or tabs after a closing quote.
    Closed,
}

/// Splits text whose separator is known.
#[derive(Debug)]
pub struct Splitter {
    state: State,
    separator: u8,
    pub(super) record: Cells,
    /// The cells of the header, once it was read.
    header: Option<Cells>,
    /// The current line, counted from 1.
    pub line: u64,
    /// The last byte was a CR, so that a following LF starts no new line.
    after_cr: bool,
    quote_line: u64,
    /// Ctrl-Z was read where a record could start; only line ends may follow.
    pub is_ended: bool,
}

impl Splitter {
    /// A parser with this separator.
    pub fn new(separator: char) -> Self {
        let mut splitter = Self {
            state: State::Record,
            separator: 0,
            record: Cells::default(),
            header: None,
            line: 1,
            after_cr: false,
            quote_line: 1,
            is_ended: false,
        };
        splitter.separate_by(separator);
        splitter
    }

    /// Changes the separator, before the first record.
    pub fn separate_by(&mut self, separator: char) {
        self.separator = u8::try_from(separator).expect("separators are ASCII");
        self.record.separator = separator;
    }

    /// Skips text without records, counting its lines.
    pub fn skip(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.count(byte));
    }

    fn count(&mut self, byte: u8) {
        self.line += u64::from(byte == b'\r' || (byte == b'\n' && !self.after_cr));
        self.after_cr = byte == b'\r';
    }

    /// Splits further text.
    ///
    /// # Errors
    /// If the text is not valid CSV, or the sink's error.
    pub fn push<S: Sink>(&mut self, mut text: &str, sink: &mut S) -> Result<(), S::Error> {
        while let Some(byte) = text.bytes().next() {
            let is_separator = byte == self.separator;
            match (self.state, byte) {
                (State::Record, b'\r' | b'\n') => {}
                (State::Record, _) => {
                    self.state = State::Value;
                    self.record.line = self.line;
                    if let Some(rest) = text.strip_prefix('\u{feff}') {
                        if self.header.is_some() {
                            return Err(self.whole(Fault::ByteOrderMark).into());
                        }
                        text = rest; // a second one before the header
                    }
                    continue;
                }
                (State::Value | State::Blank | State::Unquoted | State::Quote | State::Closed, _) if is_separator => {
                    self.end_value()?;
                    self.state = State::Value;
                }
                (State::Value | State::Blank | State::Unquoted | State::Quote | State::Closed, b'\r' | b'\n') => {
                    self.end_record(sink)?;
                }
                (State::Value | State::Blank, b'"') => {
                    // Spaces and tabs before a quote are not part of the value.
                    self.record.is_padded |= self.state == State::Blank;
                    self.record.text.truncate(self.record.start());
                    self.state = State::Quoted;
                    self.quote_line = self.line;
                }
                (State::Value | State::Blank, b' ' | b'\t') => {
                    self.state = State::Blank;
                    self.append(&text[..1])?;
                }
                (State::Quoted, b'"') => self.state = State::Quote,
                (State::Quoted, b'\r' | b'\n') => self.append(&text[..1])?,
                (State::Quoted, _) => {
                    text = self.append_until(text, |byte| matches!(byte, b'"' | b'\r' | b'\n'))?;
                    continue;
                }
                (State::Quote, b'"') => {
                    self.state = State::Quoted;
                    self.append(&text[..1])?;
                }
                (State::Quote | State::Closed, b' ' | b'\t') => {
                    self.state = State::Closed;
                    self.record.is_padded = true;
                }
                (State::Unquoted, b'"') => return Err(self.malformed(self.line, Fault::StrayQuote).into()),
                (State::Quote | State::Closed, _) => {
                    return Err(self.malformed(self.quote_line, Fault::TextAfterQuote).into());
                }
                (State::Value | State::Blank | State::Unquoted, _) => {
                    self.state = State::Unquoted;
                    let separator = self.separator;
                    text = self.append_until(text, |byte| byte == separator || matches!(byte, b'"' | b'\r' | b'\n'))?;
                    continue;
                }
            }
            self.count(byte);
            text = &text[1..];
        }
        Ok(())
    }

    /// Ends the text; its last line may lack a line end.
    ///
    /// # Errors
    /// As [`Splitter::push`].
    pub fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        match self.state {
            State::Record => Ok(()),
            State::Quoted => Err(self.malformed(self.quote_line, Fault::Unclosed).into()),
            State::Unquoted if self.record.text.ends_with(CTRL_Z) && self.header.is_some() => {
                // After the last value of a text without a final line end.
                self.record.text.pop();
                if self.record.text.is_empty() && self.record.ends.is_empty() {
                    self.state = State::Record;
                } else {
                    self.end_record(sink)?;
                }
                self.is_ended = true;
                Ok(())
            }
            _ => self.end_record(sink),
        }
    }

    /// Appends text to the current value up to a byte that may end it, and returns the rest.
    fn append_until<'a>(&mut self, text: &'a str, ends: impl Fn(u8) -> bool) -> Result<&'a str, Malformed> {
        self.after_cr = false;
        let (kept, rest) = text.split_at(text.bytes().position(ends).unwrap_or(text.len()));
        self.append(kept)?;
        Ok(rest)
    }

    fn append(&mut self, text: &str) -> Result<(), Malformed> {
        if self.record.text.len() + text.len() > RECORD_MAX_BYTES {
            return Err(if self.state == State::Quoted {
                self.malformed(self.quote_line, Fault::UnclosedWithinLimit)
            } else {
                self.whole(Fault::TooLong)
            });
        }
        self.record.text.push_str(text);
        Ok(())
    }

    fn end_value(&mut self) -> Result<(), Malformed> {
        if self.record.ends.len() == VALUES_MAX {
            return Err(self.whole(Fault::TooManyValues));
        }
        self.record.ends.push(self.record.text.len());
        self.record.quoted.push(matches!(self.state, State::Quote | State::Closed));
        Ok(())
    }

    fn end_record<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        self.end_value()?;
        self.state = State::Record;
        // A single column could contain it as a value.
        let is_end = self.record.text == CTRL_Z && self.header.as_ref().is_some_and(|header| header.count() > 1);
        if self.is_ended && !is_end {
            return Err(self.whole(Fault::AfterEnd).into());
        }
        self.is_ended = is_end;
        if !is_end {
            if self.header.is_none() {
                self.header = Some(self.record.clone());
            } else if self.is_ruling() {
                return Err(self.whole(Fault::Ruling).into());
            }
            sink.record(&self.record)?;
        }
        self.record.clear();
        Ok(())
    }

    /// Whether a record is the line below the names that psql and other programs for terminals write, or that of a table in
    /// Markdown: `|:---|---:|`.
    fn is_ruling(&self) -> bool {
        let is_below = self.header.as_ref().is_some_and(|header| self.record.line == header.line + 1);
        if !is_below && self.separator != b'|' || self.record.quoted.contains(&true) {
            return false;
        }
        let mut cells = self.record.texts().map(str::trim).filter(|cell| !cell.is_empty()).peekable();
        let is_rule = |cell: &str| cell.contains("---") && cell.bytes().all(|byte| matches!(byte, b'-' | b':'));
        cells.peek().is_some() && cells.all(is_rule)
    }

    /// An error in the current value.
    pub fn malformed(&self, line: u64, fault: Fault) -> Malformed {
        let value = self.record.ends.len();
        let name = self.header.as_ref().and_then(|header| header.get(value)).map(|cell| cell.text.trim());
        let name = name.filter(|name| !name.is_empty());
        let location = name.map_or(Location::Numbered(value + 1), |name| Location::Named(name.to_owned()));
        Malformed { line, location, fault }
    }

    /// An error in the current record.
    fn whole(&self, fault: Fault) -> Malformed {
        Malformed { line: self.record.line, location: Location::Record, fault }
    }
}
