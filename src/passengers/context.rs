//! What the handlers of passengers work with.

use super::bulk::bounds::Bulk;
use super::list::first::Lists;
use super::store::Store;
use crate::db::analyze::Growth;
use crate::db::pool::Pool;
use crate::db::reads::Reads;
use crate::http::body::BodyLimits;
use crate::http::etag::IfMatch;
use crate::http::reply::Buffers;
use crate::idempotency::once::Once;

/// Connections, bounds and what is under way.
pub struct Context {
    /// Connections for rows by key, and for whatever changes something.
    pub pool: Pool,
    /// Lists and whatever else reads many rows.
    pub reads: Reads,
    /// Single passengers.
    pub store: Store,
    /// Lists that are being read.
    pub lists: Lists,
    /// Requests that are to be carried out once.
    pub once: Once,
    /// Whether a change must say which version it is for.
    pub if_match: IfMatch,
    /// Bounds of request bodies.
    pub body_limits: BodyLimits,
    /// Memory in which lists wait for their readers.
    pub buffers: Buffers,
    /// How many passengers were added in bulk and are not analysed yet.
    pub growth: Growth,
    /// Bounds of bodies that hold many passengers.
    pub bulk: Bulk,
}
