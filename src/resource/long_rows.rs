//! The size of a resource's rows, as last read, and the memory for single rows that are long.
//!
//! Short rows are bounded by the number of connections and cost nothing here. A row over [`SMALL`] stays in a budget of its own
//! until its client has read it: lists that fill theirs do not prevent it. Memory is reserved before a row is read, as much as
//! recent rows required if that is available, or before it is changed, as much as its body or its description requires.

use std::sync::atomic::{AtomicUsize, Ordering};

use warp::http::HeaderMap;

use super::definition::Resource;
use super::kind::Kind;
use super::row::Stored;
use crate::http::body::SMALL;
use crate::http::budget::{Holder, Reservation};
use crate::http::client::Client;
use crate::http::problem::Problem;
use crate::http::reply::Buffers;

/// Assumed size of a row in a list; also of shorter ones.
const ROW_BYTES: usize = 200;
/// Mean size up to which rows count as that short. Chunks of 2,000 such rows are within their limit.
const ORDINARY_BYTES: usize = 512;
/// The body of a change is copied into its row, into its statement and into the response.
const COPIES: usize = 3;
/// Maximum reservation for a change whose row may be longer than its body.
const CHANGED_MAX: usize = 1 << 20;
/// Maximum bytes of a character in JSON.
const ESCAPED: usize = 6;
/// Maximum size of a value that is not a text, of which the longest is a decimal, with its quotes and separators.
const VALUE_BYTES: usize = 300;
/// Part by which the expected size of a long row decreases with each short row that is read.
const DECREASE: usize = 16;

/// The size of rows, and the memory for long ones.
pub struct LongRows {
    memory: Buffers,
    /// Size of a row whose texts have their maximum length.
    longest: usize,
    /// Size of the long rows that were read last; 0 if all rows were short.
    expected: AtomicUsize,
    /// Mean size in the last page or chunk.
    mean: AtomicUsize,
}

impl LongRows {
    /// Rows of this resource in this memory.
    pub fn new(resource: &Resource, memory: Buffers) -> Self {
        Self { memory, longest: longest(resource), expected: AtomicUsize::new(0), mean: AtomicUsize::new(ROW_BYTES) }
    }

    /// The expected size of a row of a list.
    pub fn mean(&self) -> usize {
        self.mean.load(Ordering::Relaxed)
    }

    /// Records the size of a page or chunk.
    pub fn measure(&self, bytes: usize, rows: usize) {
        if let Some(mean) = bytes.checked_div(rows) {
            self.mean.store(if mean > ORDINARY_BYTES { mean } else { ROW_BYTES }, Ordering::Relaxed);
        }
    }

    /// Reads a row for the client that sent these headers, with memory for it if it is long.
    ///
    /// # Errors
    /// 429 or 503 if there is no memory for it, and those of `read`.
    pub async fn read<F>(&self, headers: &HeaderMap, read: impl Fn() -> F) -> Result<Stored, Problem>
    where
        F: Future<Output = Result<Stored, Problem>>,
    {
        // Without waiting: if there is no memory, the row may be short.
        let expected = self.expected.load(Ordering::Relaxed);
        let held = (expected > SMALL).then(|| self.memory.empty(Client::of(headers)));
        let held = held.filter(|held| held.try_grow(expected).is_ok());
        let stored = read().await?;
        if self.is_covered(&stored, held.as_ref()) {
            return Ok(self.hold(headers, stored));
        }
        // Dropped, and read again with enough memory: each session of the pool may have read a row without it.
        let length = stored.document.len();
        drop((stored, held));
        let again = async {
            let _held = self.reserve(headers, length).await?;
            Ok(self.hold(headers, read().await?))
        };
        Box::pin(again).await // boxed, because it is rare
    }

    /// Reserves memory for a change with this body. If the body is not the whole row, the row may be longer.
    ///
    /// # Errors
    /// 429 or 503 if there is none.
    pub async fn reserve_change(
        &self,
        headers: &HeaderMap,
        body: usize,
        is_whole: bool,
    ) -> Result<Option<Reservation>, Problem> {
        let row = if is_whole { 0 } else { (2 * self.longest).min(CHANGED_MAX) };
        self.reserve(headers, if body > SMALL { row.max(COPIES * body) } else { row }).await
    }

    /// The row, counted in the memory until its client has read it.
    pub fn hold(&self, headers: &HeaderMap, stored: Stored) -> Stored {
        if stored.document.len() <= SMALL {
            return stored;
        }
        Stored { document: self.memory.hold(Client::of(headers), stored.document), ..stored }
    }

    async fn reserve(&self, headers: &HeaderMap, bytes: usize) -> Result<Option<Reservation>, Problem> {
        if bytes <= SMALL {
            return Ok(None);
        }
        // Boxed, so that requests with short rows do not carry the size of this future.
        let held = Box::pin(self.memory.reserve(Holder::Client(Client::of(headers)), bytes)).await;
        held.map(Some).map_err(|refused| refused.problem("memory for long rows"))
    }

    /// Whether the memory of a row that was read is reserved; records its size.
    fn is_covered(&self, stored: &Stored, held: Option<&Reservation>) -> bool {
        let (length, expected) = (stored.document.len(), self.expected.load(Ordering::Relaxed));
        if length <= SMALL {
            if expected > 0 {
                let less = expected - expected / DECREASE;
                self.expected.store(if less > SMALL { less } else { 0 }, Ordering::Relaxed);
            }
            return true;
        }
        self.expected.store(length.max(expected), Ordering::Relaxed);
        held.is_some_and(|held| length <= held.bytes() || held.try_grow(length - held.bytes()).is_ok())
    }
}

/// Whether a row may be long: each character of a text may be written as `\u0001`.
pub fn may_be_long(resource: &Resource) -> bool {
    let columns = resource.columns.iter();
    longest(resource) * ESCAPED + columns.map(|column| column.name.len() + VALUE_BYTES).sum::<usize>() > SMALL
}

/// Size of a row whose texts have their maximum length in ASCII.
pub fn longest(resource: &Resource) -> usize {
    let text = |kind: &Kind| match kind {
        Kind::Text { max_length, .. } => *max_length as usize,
        Kind::Enum(texts) => texts.iter().map(String::len).max().unwrap_or_default(),
        _ => 0,
    };
    resource.columns.iter().map(|column| text(&column.kind)).sum()
}
