//! Cuts a body into rows as it arrives, in each of its forms. A row is all that is ever kept of it, and has a limit.

use std::str::from_utf8;

use csv::StringRecord;
use csv_core::{ReadRecordResult, Reader as CsvReader};

/// Most bytes of one row: names have at most 150 characters, so this is room for blanks, escapes and long numbers.
pub const ROW_MAX_BYTES: usize = 16 * 1024;
/// Most cells of one line of CSV; the header has eight.
const CELLS_MAX: usize = 64;

/// Why a body cannot be cut into rows: its line, and what is expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Counted from 1.
    pub line: u64,
    /// What must be there.
    pub expected: &'static str,
}

const ROW_TOO_LONG: &str = "a row of at most 16384 bytes";

/// Takes the rows of a body, each with the line on which it begins, counted from 1.
pub trait Rows {
    /// One JSON value.
    fn json(&mut self, line: u64, text: &[u8]);
    /// One line of CSV, the header included.
    fn record(&mut self, line: u64, record: &StringRecord);
}

/// What a body is cut by.
#[derive(Debug)]
pub enum Splitter {
    /// `application/json`
    Array(Array),
    /// `application/x-ndjson`
    Lines(Lines),
    /// `text/csv`
    Table(Box<Table>),
}

impl Splitter {
    /// Takes what has arrived.
    ///
    /// # Errors
    /// When it cannot be cut into rows.
    pub fn push(&mut self, bytes: &[u8], rows: &mut impl Rows) -> Result<(), Stuck> {
        match self {
            Self::Array(array) => array.push(bytes, rows),
            Self::Lines(lines) => lines.push(bytes, rows),
            Self::Table(table) => table.push(bytes, rows),
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// When it ends too early.
    pub fn finish(&mut self, rows: &mut impl Rows) -> Result<(), Stuck> {
        match self {
            Self::Array(array) => array.finish(),
            Self::Lines(lines) => lines.finish(rows),
            Self::Table(table) => table.finish(rows),
        }
    }
}

/// The elements of one JSON array. Their own syntax is judged when they are read.
#[derive(Debug, Default)]
pub struct Array {
    state: State,
    element: Vec<u8>,
    /// Open brackets within the element.
    depth: usize,
    in_string: bool,
    escaped: bool,
    line: u64,
    element_line: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the array.
    #[default]
    Before,
    /// Behind its bracket: an element or its end.
    First,
    /// Behind a comma: an element.
    Next,
    /// In an element.
    Element,
    /// Behind the array.
    Behind,
}

impl Array {
    fn push(&mut self, bytes: &[u8], rows: &mut impl Rows) -> Result<(), Stuck> {
        for byte in bytes {
            self.byte(*byte, rows)?;
            self.line += u64::from(*byte == b'\n');
        }
        Ok(())
    }

    fn byte(&mut self, byte: u8, rows: &mut impl Rows) -> Result<(), Stuck> {
        let blank = byte.is_ascii_whitespace();
        match (self.state, byte) {
            (State::Element, _) => self.in_element(byte, rows),
            _ if blank => Ok(()),
            (State::Before, b'[') => self.to(State::First),
            (State::Before, _) => self.stuck("the opening bracket of a JSON array"),
            (State::First, b']') => self.to(State::Behind),
            (State::First | State::Next, b',' | b']') => self.stuck("a JSON object"),
            (State::First | State::Next, _) => {
                self.element_line = self.line + 1;
                self.state = State::Element;
                self.in_element(byte, rows)
            }
            (State::Behind, _) => self.stuck("the end of the body behind the array"),
        }
    }

    fn in_element(&mut self, byte: u8, rows: &mut impl Rows) -> Result<(), Stuck> {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b']' | b'}' if self.depth == 0 => {
                    rows.json(self.element_line, &self.element);
                    self.element.clear();
                    return match byte {
                        b',' => self.to(State::Next),
                        b']' => self.to(State::Behind),
                        _ => self.stuck("a comma or the array's closing bracket"),
                    };
                }
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        if self.element.len() == ROW_MAX_BYTES {
            return self.stuck(ROW_TOO_LONG);
        }
        self.element.push(byte);
        Ok(())
    }

    fn finish(&self) -> Result<(), Stuck> {
        match self.state {
            State::Behind => Ok(()),
            State::Before => self.stuck("a JSON array; the body is empty"),
            _ => self.stuck("the rest of the array; the body ends too early"),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the arms of a match are alike")]
    fn to(&mut self, state: State) -> Result<(), Stuck> {
        self.state = state;
        Ok(())
    }

    fn stuck(&self, expected: &'static str) -> Result<(), Stuck> {
        Err(Stuck { line: self.line + 1, expected })
    }
}

/// One JSON value per line; empty lines are passed over.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
    line: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], rows: &mut impl Rows) -> Result<(), Stuck> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.rest.len() + part.len() > ROW_MAX_BYTES {
                return Err(Stuck { line: self.line + 1, expected: ROW_TOO_LONG });
            }
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.row(rows);
            }
        }
        Ok(())
    }

    fn row(&mut self, rows: &mut impl Rows) {
        self.line += 1;
        if !self.rest.trim_ascii().is_empty() {
            rows.json(self.line, &self.rest);
        }
        self.rest.clear();
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other forms")]
    fn finish(&mut self, rows: &mut impl Rows) -> Result<(), Stuck> {
        self.row(rows);
        Ok(())
    }
}

/// The records of CSV.
pub struct Table {
    reader: CsvReader,
    cells: Vec<u8>,
    filled: usize,
    ends: Vec<usize>,
    ended: usize,
    record: StringRecord,
    begun_on: u64,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Table").field("line", &self.reader.line()).finish_non_exhaustive()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            reader: CsvReader::new(),
            cells: vec![0; ROW_MAX_BYTES],
            filled: 0,
            ends: vec![0; CELLS_MAX],
            ended: 0,
            record: StringRecord::new(),
            begun_on: 1,
        }
    }
}

impl Table {
    fn push(&mut self, bytes: &[u8], rows: &mut impl Rows) -> Result<(), Stuck> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.read(rest, rows)?..];
        }
        Ok(())
    }

    /// Reads up to the end of a row, or everything, and says how much that was. Nothing at all means that the body has ended.
    fn read(&mut self, bytes: &[u8], rows: &mut impl Rows) -> Result<usize, Stuck> {
        let (result, read, written, ended) =
            self.reader.read_record(bytes, &mut self.cells[self.filled..], &mut self.ends[self.ended..]);
        self.filled += written;
        self.ended += ended;
        match result {
            ReadRecordResult::Record => self.row(rows)?,
            ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            ReadRecordResult::OutputFull => return self.stuck(ROW_TOO_LONG),
            ReadRecordResult::OutputEndsFull => return self.stuck("a row of no more cells than the header has"),
        }
        Ok(read)
    }

    fn row(&mut self, rows: &mut impl Rows) -> Result<(), Stuck> {
        let Ok(text) = from_utf8(&self.cells[..self.filled]) else { return self.stuck("text in UTF-8") };
        self.record.clear();
        let mut start = 0;
        for end in &self.ends[..self.ended] {
            // A character across two cells is whole only in both together.
            let Some(cell) = text.get(start..*end) else { return self.stuck("text in UTF-8") };
            self.record.push_field(cell);
            start = *end;
        }
        rows.record(self.begun_on, &self.record);
        (self.filled, self.ended) = (0, 0);
        self.begun_on = self.reader.line();
        Ok(())
    }

    fn finish(&mut self, rows: &mut impl Rows) -> Result<(), Stuck> {
        self.read(&[], rows).map(|_| ()) // a last row without a line's end
    }

    fn stuck<T>(&self, expected: &'static str) -> Result<T, Stuck> {
        Err(Stuck { line: self.begun_on, expected })
    }
}

#[cfg(test)]
mod tests;
