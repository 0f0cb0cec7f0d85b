//! The shared state of a resource's handlers.

use std::sync::Arc;

use super::bulk::bounds::Bulk;
use super::definition::Resource;
use super::list::first::Lists;
use super::long_rows::LongRows;
use super::store::Store;
use crate::db::analyze::Growth;
use crate::db::pool::Pool;
use crate::db::reads::Reads;
use crate::http::body::BodyLimits;
use crate::http::etag::IfMatch;
use crate::http::reply::Buffers;
use crate::idempotency::once::Once;

/// Connections, limits and work in progress.
pub struct Context {
    /// The resource served.
    pub resource: &'static Resource,
    /// Connections for rows by key and for all writes.
    pub pool: Pool,
    /// Connections for lists and other reads of many rows.
    pub reads: Reads,
    /// Access to single rows.
    pub store: Store,
    /// The size of rows, and memory for long single ones.
    pub rows: LongRows,
    /// Lists being read.
    pub lists: Lists,
    /// Idempotent requests.
    pub once: Once,
    /// Whether a change requires `If-Match`.
    pub if_match: IfMatch,
    /// Limits of request bodies.
    pub body_limits: BodyLimits,
    /// Memory for list chunks that wait for their clients.
    pub buffers: Buffers,
    /// Number of rows added in bulk and not analysed yet.
    pub growth: Growth,
    /// Limits of bulk bodies.
    pub bulk: Arc<Bulk>,
}
