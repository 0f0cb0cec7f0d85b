//! CSV errors and their positions.

use std::fmt;

use thiserror::Error;

use super::separator;
use super::signature::Foreign;

/// Maximum bytes of one record: names have at most 150 characters, so this leaves room for spaces, escapes and long numbers.
pub const RECORD_MAX_BYTES: usize = 16 * 1024;
/// Maximum values of one record; no table has that many columns, but other files do.
pub const VALUES_MAX: usize = 1000;

/// Why a text is not valid CSV, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}{location}: {fault}")]
pub struct Malformed {
    /// The line of the error, counted from 1; for a quoted value the line of its opening quote.
    pub line: u64,
    /// The position in the record.
    pub location: Location,
    /// The error.
    pub fault: Fault,
}

/// The probable cause if a record has more cells than the header, or only one.
fn width_hint(expected: usize, found: usize) -> &'static str {
    if found == expected + 1 {
        "; if the first ones are row names from R's write.table, write the file with col.names=NA or without row.names; \
         otherwise enclose values that contain the separator in quotes"
    } else if found > expected {
        "; enclose values that contain the separator in quotes"
    } else if found == 1 {
        "; if it is a comment, a title or a count of rows, remove it"
    } else {
        ""
    }
}

/// The position of an error in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// The whole record.
    Record,
    /// A column with a header.
    Named(String),
    /// A column of the header itself, or beyond it: its number, counted from 1.
    Numbered(usize),
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record => Ok(()),
            Self::Named(name) => write!(formatter, ", column {name}"),
            Self::Numbered(number) => write!(formatter, ", column {number}"),
        }
    }
}

/// The kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The text ends within quotes.
    #[error("has an opening quote that is never closed; close it, and double each quote inside the value")]
    Unclosed,
    /// The record exceeds its limit within quotes.
    #[error(
        "has an opening quote that is not closed within {RECORD_MAX_BYTES} bytes; close it, and double each quote \
         inside the value"
    )]
    UnclosedWithinLimit,
    /// A closing quote is followed by text.
    #[error("has text after its closing quote; enclose the whole value in quotes, and double each quote inside it")]
    TextAfterQuote,
    /// An unquoted value contains a quote.
    #[error("has a quote inside an unquoted value; enclose the value in quotes, and double the quote")]
    StrayQuote,
    /// The record exceeds its size limit.
    #[error("must be a row of at most {RECORD_MAX_BYTES} bytes")]
    TooLong,
    /// The record has too many values.
    #[error("must be a row of at most {VALUES_MAX} cells")]
    TooManyValues,
    /// The number of cells differs from the header.
    #[error("must have {expected} cells like the header, but has {found}{}", width_hint(*expected, *found))]
    Width {
        /// Number of cells of the header.
        expected: usize,
        /// Number of cells of the record.
        found: usize,
    },
    /// The bytes are not valid in the encoding.
    #[error(
        "must be text in {0}; name another encoding, such as windows-1252, as charset of the Content-Type or with --encoding"
    )]
    Encoding(&'static str),
    /// The content is not text.
    #[error(transparent)]
    Foreign(Foreign),
    /// The header contains U+0000.
    #[error(
        "contains U+0000, as UTF-16 does in every ASCII character; name the encoding, such as utf-16le, as charset of \
         the Content-Type or with --encoding"
    )]
    Null,
    /// More than one separator splits the header into known columns.
    #[error(
        "can be read with {} and with {} as separators; insert a line such as sep={} before it, or quote the cells \
         that contain the other character",
        separator::name(*.0), separator::name(*.1), .0
    )]
    Separators(char, char),
    /// A line `sep=` has an unknown separator.
    #[error("has an unsupported separator; use one of , ; | and tab")]
    UnknownSeparator,
    /// The header consists of known columns if it is split by an unsupported separator.
    #[error("is separated by {0}; separate the cells by one of , ; | and tab")]
    UnsupportedSeparator(&'static str),
    /// A record begins with a byte order mark.
    #[error(
        "begins with a byte order mark (U+FEFF), as a file that was appended to another one does; remove it, or enclose it in \
         quotes if it belongs to the value"
    )]
    ByteOrderMark,
    /// A record repeats the header.
    #[error("is the header again, as in files that were appended to each other; remove it, or send such a row as JSON")]
    RepeatedHeader,
    /// A record consists of dashes.
    #[error(
        "is a ruling line between the names and the rows of a table, not a row; remove it, or put its values in quotes if it is a row"
    )]
    Ruling,
    /// Records follow the end-of-file character.
    #[error("is after the end-of-file character (Ctrl-Z); remove that character, or what follows it")]
    AfterEnd,
}
