//! CSV cut into records (RFC 4180), strictly: what is quoted wrongly is refused and never guessed at.
//!
//! PostgreSQL's `COPY` refuses a quote that is never closed, too; text behind a closing quote and a quote inside an unquoted
//! value it takes as they stand. Here both are faults, because that is what a missing or stray quote looks like when a later
//! quote seems to close it: rows would merge into one value. Lines end in LF, CRLF or CR, blank ones are skipped, and a byte
//! order mark at the beginning is dropped. One record is all that is kept, and it has a limit.

use std::fmt;
use std::str::from_utf8;

use csv::{Position, StringRecord};
use thiserror::Error;

/// Most bytes of one record: names have at most 150 characters, so this is room for blanks, escapes and long numbers.
pub const RECORD_MAX_BYTES: usize = 16 * 1024;
/// Most values of one record; no table has as many columns.
const VALUES_MAX: usize = 64;
/// UTF-8's.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a text is no CSV, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}{place}: {fault}")]
pub struct Malformed {
    /// The line at fault, counted from 1; of a quoted value the one on which its quote opened.
    pub line: u64,
    /// What is at fault there.
    pub place: Place,
    /// What is wrong.
    pub fault: Fault,
}

/// Where in a record a fault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The record as a whole.
    Record,
    /// In a column that the header names.
    Named(String),
    /// In the header itself, or beyond it: the column's number, counted from 1.
    Numbered(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record => Ok(()),
            Self::Named(name) => write!(formatter, ", column {name}"),
            Self::Numbered(number) => write!(formatter, ", column {number}"),
        }
    }
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The text ends within quotes.
    #[error("has an opening quote that is never closed; close it, and double each quote inside the value")]
    Unclosed,
    /// The record passes its limit within quotes.
    #[error(
        "has an opening quote that is not closed within {RECORD_MAX_BYTES} bytes; close it, and double each quote inside the value"
    )]
    UnclosedWithinLimit,
    /// A closing quote is followed by something else than the value's end.
    #[error("has text behind its closing quote; enclose the whole value in quotes, and double each quote inside it")]
    BehindQuote,
    /// An unquoted value holds a quote.
    #[error("has a quote inside an unquoted value; enclose the value in quotes, and double the quote")]
    StrayQuote,
    /// The record passes its limit.
    #[error("must be a row of at most {RECORD_MAX_BYTES} bytes")]
    TooLong,
    /// The record has too many values.
    #[error("must be a row of at most {VALUES_MAX} cells")]
    TooManyValues,
    /// The record is not as wide as the header.
    #[error("must have {expected} cells as the header has, and not {found}")]
    Width {
        /// The header's cells.
        expected: usize,
        /// The record's.
        found: usize,
    },
    /// The record is not UTF-8.
    #[error("must be text in UTF-8")]
    Encoding,
}

/// Where in a record the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of the text, behind this many bytes of a byte order mark.
    Mark(usize),
    /// Before a record.
    Record,
    /// Behind a comma.
    Value,
    /// In a value without quotes.
    Unquoted,
    /// In a quoted value.
    Quoted,
    /// Behind a quote in a quoted value: its end, or the first of two that stand for one.
    Quote,
}

/// The reader of one text, which may arrive in any chunks; its first record is the header.
#[derive(Debug)]
pub struct Records {
    state: State,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    record: StringRecord,
    /// The first record.
    header: Option<StringRecord>,
    /// The current line, counted from 1.
    line: u64,
    /// The last byte was a CR, so a LF after it begins no further line.
    after_cr: bool,
    record_line: u64,
    quote_line: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            state: State::Mark(0),
            bytes: Vec::new(),
            ends: Vec::new(),
            record: StringRecord::new(),
            header: None,
            line: 1,
            after_cr: false,
            record_line: 1,
            quote_line: 1,
        }
    }
}

impl Records {
    /// Takes what has arrived, and gives each record that ends in it, with the line on which it begins as its position.
    ///
    /// # Errors
    /// Where the text is no CSV, or what `each` says; nothing may follow then.
    pub fn push<E: From<Malformed>>(
        &mut self,
        mut text: &[u8],
        each: &mut impl FnMut(&StringRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((byte, rest)) = text.split_first() {
            match (self.state, byte) {
                (State::Mark(seen), byte) if *byte == BYTE_ORDER_MARK[seen] => {
                    self.state = if seen + 1 == BYTE_ORDER_MARK.len() { State::Record } else { State::Mark(seen + 1) };
                }
                (State::Mark(0), _) => {
                    self.state = State::Record;
                    continue;
                }
                (State::Mark(seen), _) => {
                    self.state = State::Unquoted; // which is no UTF-8 either
                    self.bytes.extend_from_slice(&BYTE_ORDER_MARK[..seen]);
                    continue;
                }
                (State::Record, b'\r' | b'\n') => {}
                (State::Record, _) => {
                    self.state = State::Value;
                    self.record_line = self.line;
                    continue;
                }
                (State::Value, b'"') => {
                    self.state = State::Quoted;
                    self.quote_line = self.line;
                }
                (State::Quoted, b'"') => self.state = State::Quote,
                (State::Quoted, b'\r' | b'\n') => self.keep(&text[..1])?,
                (State::Quoted, _) => {
                    text = self.keep_until(text, |byte| matches!(byte, b'"' | b'\r' | b'\n'))?;
                    continue;
                }
                (State::Quote, b'"') => {
                    self.state = State::Quoted;
                    self.keep(&text[..1])?;
                }
                (State::Value | State::Unquoted | State::Quote, b',') => {
                    self.end_value()?;
                    self.state = State::Value;
                }
                (State::Value | State::Unquoted | State::Quote, b'\r' | b'\n') => self.end_record(each)?,
                (State::Unquoted, b'"') => return Err(self.malformed(self.line, Fault::StrayQuote).into()),
                (State::Quote, _) => return Err(self.malformed(self.quote_line, Fault::BehindQuote).into()),
                (State::Value | State::Unquoted, _) => {
                    self.state = State::Unquoted;
                    text = self.keep_until(text, |byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'))?;
                    continue;
                }
            }
            self.line += u64::from(*byte == b'\r' || (*byte == b'\n' && !self.after_cr));
            self.after_cr = *byte == b'\r';
            text = rest;
        }
        Ok(())
    }

    /// The text has ended; its last line may lack a line end.
    ///
    /// # Errors
    /// As [`Records::push`].
    pub fn finish<E: From<Malformed>>(
        &mut self,
        each: &mut impl FnMut(&StringRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.state {
            State::Mark(0) | State::Record => Ok(()),
            State::Mark(_) => Err(self.malformed(self.line, Fault::Encoding).into()),
            State::Quoted => Err(self.malformed(self.quote_line, Fault::Unclosed).into()),
            State::Value | State::Unquoted | State::Quote => self.end_record(each),
        }
    }

    /// Keeps bytes of the current value up to one that may end it, and returns the rest.
    fn keep_until<'a>(&mut self, text: &'a [u8], ends: fn(&u8) -> bool) -> Result<&'a [u8], Malformed> {
        self.after_cr = false;
        let (kept, rest) = text.split_at(text.iter().position(ends).unwrap_or(text.len()));
        self.keep(kept)?;
        Ok(rest)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.bytes.len() + bytes.len() > RECORD_MAX_BYTES {
            return Err(if self.state == State::Quoted {
                self.malformed(self.quote_line, Fault::UnclosedWithinLimit)
            } else {
                self.whole(Fault::TooLong)
            });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end_value(&mut self) -> Result<(), Malformed> {
        if self.ends.len() == VALUES_MAX {
            return Err(self.whole(Fault::TooManyValues));
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    fn end_record<E: From<Malformed>>(
        &mut self,
        each: &mut impl FnMut(&StringRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        self.end_value()?;
        let text = from_utf8(&self.bytes).map_err(|_| self.whole(Fault::Encoding))?;
        self.record.clear();
        let mut start = 0;
        for end in &self.ends {
            // A character across two values is whole only in both together.
            self.record.push_field(text.get(start..*end).ok_or_else(|| self.whole(Fault::Encoding))?);
            start = *end;
        }
        let mut position = Position::new();
        position.set_line(self.record_line);
        self.record.set_position(Some(position));
        self.bytes.clear();
        self.ends.clear();
        self.state = State::Record;
        if self.header.is_none() {
            self.header = Some(self.record.clone());
        }
        each(&self.record)
    }

    /// The current value is at fault.
    fn malformed(&self, line: u64, fault: Fault) -> Malformed {
        let value = self.ends.len();
        let name = self.header.as_ref().and_then(|header| header.get(value));
        let place = name.map_or(Place::Numbered(value + 1), |name| Place::Named(name.to_owned()));
        Malformed { line, place, fault }
    }

    /// The current record is at fault.
    fn whole(&self, fault: Fault) -> Malformed {
        Malformed { line: self.record_line, place: Place::Record, fault }
    }
}

/// Refuses a record that is not as wide as the header.
///
/// # Errors
/// [`Fault::Width`].
pub fn check_width(record: &StringRecord, expected: usize) -> Result<(), Malformed> {
    let found = record.len();
    let fault = Fault::Width { expected, found };
    if found == expected { Ok(()) } else { Err(Malformed { line: line_of(record), place: Place::Record, fault }) }
}

/// The line on which a record begins, counted from 1.
pub fn line_of(record: &StringRecord) -> u64 {
    record.position().map_or(0, Position::line)
}

#[cfg(test)]
mod tests;
