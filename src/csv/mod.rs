//! CSV as spreadsheets and other programs write it: a text in an encoding, cut into records of cells (RFC 4180).
//!
//! What the file itself tells is taken from it: a byte order mark, the separator of its header line, a line `sep=`. Whatever
//! could mean two things is refused. What the cells mean is said by whoever takes them.

pub mod cells;
pub mod cutter;
pub mod encoding;
pub mod fault;
pub mod file;
mod header_line;
pub mod notes;
pub mod opening;
pub mod records;
pub mod separator;
