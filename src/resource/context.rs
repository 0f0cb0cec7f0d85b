//! What the handlers of a resource work with.

use std::sync::Arc;

use super::bulk::bounds::Bulk;
use super::definition::Resource;
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
    /// What is served.
    pub resource: &'static Resource,
    /// Connections for rows by key, and for whatever changes something.
    pub pool: Pool,
    /// Lists and whatever else reads many rows.
    pub reads: Reads,
    /// Single rows.
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
    /// How many rows were added in bulk and are not analysed yet.
    pub growth: Growth,
    /// Bounds of bodies that hold many rows.
    pub bulk: Arc<Bulk>,
}
