//! Reads CSV as spreadsheets and other programs write it: decodes a text and splits it into records of cells (RFC 4180).
//!
//! Properties that the file declares are used: a byte order mark, the separator of its header line, a line `sep=`. Ambiguous
//! input is refused. The caller interprets the cells.

pub mod cells;
pub mod encoding;
pub mod fault;
pub mod file;
mod header_line;
pub mod notes;
pub mod records;
pub mod separator;
pub mod signature;
pub mod splitter;
