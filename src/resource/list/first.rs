//! The first page or chunk of a list, which is read once for all identical concurrent requests.

use std::sync::Arc;

use bytes::Bytes;

use super::cursor::CursorPosition;
use crate::db::position::Consistency;
use crate::db::single_flight::SingleFlight;
use crate::http::budget::Refused;
use crate::http::format::Format;

/// What identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListKey {
    /// The query string.
    pub query: String,
    /// The format.
    pub format: Format,
    /// The limit of a page, which may be the default rather than in the query.
    pub limit: Option<usize>,
    /// Whether the replica must have replayed up to a certain position; such requests do not delay others.
    pub needs_position: bool,
}

/// Lists being read.
pub type Lists = SingleFlight<ListKey, Consistency, Result<Arc<First>, Refused>>;

/// The first page or chunk of a response.
#[derive(Debug)]
pub struct First {
    /// The serialised page or chunk.
    pub body: Bytes,
    /// Its content.
    pub page: Page,
    /// The position that the rest must have replayed, so that it is not older.
    pub consistency: Consistency,
}

/// The content of a page or chunk.
#[derive(Debug)]
pub struct Page {
    /// The number of rows.
    pub rows: usize,
    /// Whether it ends before its limit, because its rows are long.
    pub is_cut: bool,
    /// The positions of its first and last row.
    pub ends: Option<(CursorPosition, CursorPosition)>,
    /// Whether there are rows before it, as far as known.
    pub before: bool,
    /// Whether there are rows after it.
    pub after: bool,
}
