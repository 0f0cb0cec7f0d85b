//! Why a text is no CSV, and where.

use std::fmt;

use thiserror::Error;

use super::opening::Foreign;
use super::separator;

/// Most bytes of one record: names have at most 150 characters, so this is room for blanks, escapes and long numbers.
pub const RECORD_MAX_BYTES: usize = 16 * 1024;
/// Most values of one record; no table has as many columns, but files of others do.
pub const VALUES_MAX: usize = 1000;

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

/// What a record of one cell more than the header probably has.
fn unnamed(expected: usize, found: usize) -> &'static str {
    if found == expected + 1 {
        "; if the first ones are names of rows, as R's write.table writes them, write them with col.names=NA or without row.names"
    } else {
        ""
    }
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
    #[error("must have {expected} cells as the header has, and not {found}{}", unnamed(*expected, *found))]
    Width {
        /// The header's cells.
        expected: usize,
        /// The record's.
        found: usize,
    },
    /// The text is not in its encoding.
    #[error(
        "must be text in {0}; name another encoding, such as windows-1252, as charset of the Content-Type or with --encoding"
    )]
    Encoding(&'static str),
    /// It is something else than text.
    #[error(transparent)]
    Foreign(Foreign),
    /// The header holds U+0000.
    #[error(
        "holds U+0000, as UTF-16 does in every letter; name the encoding, such as utf-16le, as charset of the Content-Type or with --encoding"
    )]
    Null,
    /// The header has the table's columns with more than one separator.
    #[error(
        "can be read with {} and with {} between its cells; write a line such as sep={} in front of it, or enclose in quotes \
         what does not separate",
        separator::called(*.0), separator::called(*.1), .0
    )]
    Separators(char, char),
    /// A line `sep=` names something else than a separator.
    #[error("names a separator that is not taken; it is one of , ; | and a tab")]
    UnknownSeparator,
    /// More records follow the character that ends a text.
    #[error("is behind the end-of-file character (Ctrl-Z); take that character out, or what follows it")]
    BehindEnd,
}
