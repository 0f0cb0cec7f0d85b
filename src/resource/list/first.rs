//! The first page or chunk of a list, which is read once for all who ask for it at the same time.

use std::sync::Arc;

use bytes::Bytes;

use super::cursor::Position;
use crate::db::position::Need;
use crate::db::single_flight::SingleFlight;
use crate::http::budget::Refused;
use crate::http::format::Format;

/// What tells two of them apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The query string.
    pub query: String,
    /// The form.
    pub format: Format,
    /// Rows of a page, which the query need not say.
    pub limit: Option<usize>,
    /// Whether a replica must have something in particular: who asks for that keeps nobody else waiting.
    pub is_needy: bool,
}

/// Those that are being read.
pub type Lists = SingleFlight<Asked, Need, Result<Arc<First>, Refused>>;

/// The first page or chunk of an answer.
#[derive(Debug)]
pub struct First {
    /// The page, or the chunk.
    pub body: Bytes,
    /// What is in it.
    pub page: Page,
    /// What the rest must hold, not to be older.
    pub need: Need,
}

/// What is in a page or a chunk of a list.
#[derive(Debug)]
pub struct Page {
    /// How many rows.
    pub rows: usize,
    /// Where its first and its last row stand.
    pub ends: Option<(Position, Position)>,
    /// Whether there are rows before it, as far as is known.
    pub before: bool,
    /// Whether there are rows behind it.
    pub after: bool,
}
