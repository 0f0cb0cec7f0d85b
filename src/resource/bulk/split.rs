//! Splits a body into rows as it arrives, in each format. Only the current row is buffered, and its size is limited.

use crate::csv::fault::{Fault, Location, Malformed, RECORD_MAX_BYTES as ROW_MAX_BYTES};
use crate::csv::records::Records;
use crate::csv::splitter::Sink;
use crate::http::json::fault::Position;
use crate::http::json::without_bom;

/// Why a body cannot be split into rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitError {
    /// Counted from 1.
    pub line: u64,
    /// The invalid field; empty for the row as a whole.
    pub field: String,
    /// What is wrong, or what is expected.
    pub detail: String,
}

impl SplitError {
    /// An error of the row or body as a whole.
    pub fn new(line: u64, detail: impl Into<String>) -> Self {
        Self { line, field: String::new(), detail: detail.into() }
    }

    fn too_long(line: u64) -> Self {
        Self::new(line, Fault::TooLong.to_string())
    }
}

impl From<Malformed> for SplitError {
    fn from(Malformed { line, location, fault }: Malformed) -> Self {
        match location {
            Location::Record => Self::new(line, fault.to_string()),
            Location::Named(field) => Self { line, field, detail: fault.to_string() },
            Location::Numbered(number) => Self::new(line, format!("column {number} {fault}")),
        }
    }
}

/// Receives the rows of a body: CSV records, or JSON values.
pub trait RowSink: Sink<Error = SplitError> {
    /// Receives one JSON value and the position at which it starts.
    fn json(&mut self, begin: Position, text: &[u8]);
}

/// Splits a body by its format.
#[derive(Debug)]
pub enum Splitter {
    /// `application/json`
    Array(Array),
    /// `application/x-ndjson`
    Lines(Lines),
    /// `text/csv`
    Csv(Box<Records>),
}

impl Splitter {
    /// Adds received bytes.
    ///
    /// # Errors
    /// When they cannot be split into rows.
    pub fn push(&mut self, bytes: &[u8], rows: &mut impl RowSink) -> Result<(), SplitError> {
        match self {
            Self::Array(array) => array.push(bytes, rows),
            Self::Lines(lines) => lines.push(bytes, rows),
            Self::Csv(records) => records.push(bytes, rows),
        }
    }

    /// Handles the end of the body.
    ///
    /// # Errors
    /// When it ends too early.
    pub fn finish(&mut self, rows: &mut impl RowSink) -> Result<(), SplitError> {
        match self {
            Self::Array(array) => array.finish(),
            Self::Lines(lines) => lines.finish(rows),
            Self::Csv(records) => records.finish(rows),
        }
    }
}

/// The elements of one JSON array. Their syntax is checked when they are parsed.
#[derive(Debug, Default)]
pub struct Array {
    state: State,
    element: Vec<u8>,
    /// Open brackets within the element.
    depth: usize,
    in_string: bool,
    escaped: bool,
    at: LineCount,
    begin: Position,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the array.
    #[default]
    Before,
    /// After its opening bracket: an element or the end of the array.
    First,
    /// After a comma: an element.
    Next,
    /// Inside an element.
    Element,
    /// After the array.
    After,
}

impl Array {
    fn push(&mut self, bytes: &[u8], rows: &mut impl RowSink) -> Result<(), SplitError> {
        for byte in bytes {
            self.byte(*byte, rows)?;
            self.at.count(*byte);
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8, rows: &mut impl RowSink) -> Result<(), SplitError> {
        let blank = byte.is_ascii_whitespace();
        match (self.state, byte) {
            (State::Element, _) => self.in_element(byte, rows),
            _ if blank => Ok(()),
            (State::Before, b'[') => self.to(State::First),
            (State::Before, _) => self.fail("the opening bracket of a JSON array"),
            (State::First, b']') => self.to(State::After),
            (State::Next, b']') => self.fail("a JSON object, or the end of the array without a comma before it"),
            (State::First | State::Next, b',') => self.fail("a JSON object"),
            (State::First | State::Next, _) => {
                self.begin = self.at.position;
                self.state = State::Element;
                self.in_element(byte, rows)
            }
            (State::After, _) => self.fail("the end of the body after the array"),
        }
    }

    fn in_element(&mut self, byte: u8, rows: &mut impl RowSink) -> Result<(), SplitError> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b']' | b'}' if self.depth == 0 => {
                    rows.json(self.begin, &self.element);
                    self.element.clear();
                    return match byte {
                        b',' => self.to(State::Next),
                        b']' => self.to(State::After),
                        _ => self.fail("a comma or the array's closing bracket"),
                    };
                }
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        if self.element.len() == ROW_MAX_BYTES {
            return Err(SplitError::too_long(self.at.position.line));
        }
        self.element.push(byte);
        Ok(())
    }

    fn finish(&self) -> Result<(), SplitError> {
        match self.state {
            State::After => Ok(()),
            State::Before => self.fail("a JSON array; the body is empty"),
            _ => self.fail("the rest of the array; the body ends too early"),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the arms of a match are alike")]
    fn to(&mut self, state: State) -> Result<(), SplitError> {
        self.state = state;
        Ok(())
    }

    fn fail(&self, expected: &'static str) -> Result<(), SplitError> {
        Err(SplitError::new(self.at.position.line, format!("must be {expected}")))
    }
}

/// One JSON value per line; a line ends in LF, CRLF or CR, and empty lines are skipped. Within brackets a CR is JSON whitespace
/// and does not end a value.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
    /// The position after the received bytes, of which only the line is counted, and the position at which `rest` starts.
    line: Position,
    begin: Position,
    /// The last byte was a CR, so an LF after it does not start another line.
    after_cr: bool,
    /// How much of `rest` has been scanned for brackets (only after a CR is seen), and the state of that scan.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], rows: &mut impl RowSink) -> Result<(), SplitError> {
        for segment in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            if self.rest.len() + segment.len() > ROW_MAX_BYTES {
                return Err(SplitError::too_long(self.begin.line));
            }
            self.rest.extend_from_slice(segment);
            match segment.last() {
                Some(b'\n') => {
                    self.line.line += u64::from(!(self.after_cr && segment.len() == 1));
                    self.row(rows);
                }
                Some(b'\r') => {
                    self.line.line += 1;
                    if self.is_whole() {
                        self.row(rows);
                    }
                }
                _ => {}
            }
            self.after_cr = segment.ends_with(b"\r");
        }
        Ok(())
    }

    /// Whether a CR ends a value here: outside of brackets, or within a string, which cannot contain a CR.
    fn is_whole(&mut self) -> bool {
        for byte in &self.rest[self.seen..] {
            match byte {
                b'\r' => {}
                _ if self.in_string => {
                    self.in_string = self.escaped || *byte != b'"';
                    self.escaped = !self.escaped && *byte == b'\\';
                }
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.seen = self.rest.len();
        self.depth == 0 || self.in_string
    }

    fn row(&mut self, rows: &mut impl RowSink) {
        // Each line is a JSON text, which may begin with a byte order mark, as in files that were appended to each other.
        let text = without_bom(&self.rest);
        if !text.trim_ascii().is_empty() {
            rows.json(self.begin, text);
        }
        self.rest.clear();
        (self.seen, self.depth, self.in_string, self.escaped) = (0, 0, false, false);
        self.begin = self.line;
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other forms")]
    fn finish(&mut self, rows: &mut impl RowSink) -> Result<(), SplitError> {
        self.row(rows);
        Ok(())
    }
}

/// Counts lines, which end in LF, CRLF or CR, and characters within them.
#[derive(Debug, Default)]
struct LineCount {
    position: Position,
    /// The last byte was a CR, so an LF after it does not start another line.
    after_cr: bool,
}

impl LineCount {
    fn count(&mut self, byte: u8) {
        match byte {
            b'\n' if self.after_cr => {}
            b'\r' | b'\n' => self.position = Position { line: self.position.line + 1, column: 1 },
            other => self.position.column += u64::from(other & 0xc0 != 0x80),
        }
        self.after_cr = byte == b'\r';
    }
}

#[cfg(test)]
mod tests;
