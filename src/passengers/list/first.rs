//! The first part of a list, which is read once for all who ask for it at the same time.

use std::sync::Arc;

use bytes::Bytes;

use super::cursor::Place;
use super::format::Format;
use crate::db::single_flight::SingleFlight;
use crate::http::budget::Refused;

/// What tells two first parts apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The query string.
    pub query: String,
    /// The form.
    pub format: Format,
    /// Rows of a page, which the query need not say.
    pub limit: Option<usize>,
}

/// First parts that are being read.
pub type Lists = SingleFlight<Asked, Result<Arc<First>, Refused>>;

/// The first part of an answer.
#[derive(Debug)]
pub struct First {
    /// The page, or the piece.
    pub body: Bytes,
    /// What is in it.
    pub part: Part,
}

/// What is in a part of a list.
#[derive(Debug)]
pub struct Part {
    /// How many rows.
    pub rows: usize,
    /// Where its first and its last row stand.
    pub ends: Option<(Place, Place)>,
    /// Whether there are rows before it, as far as is known.
    pub before: bool,
    /// Whether there are rows behind it.
    pub after: bool,
}
