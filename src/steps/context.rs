//! What the handlers of steps work with.

use crate::db::pool::Pool;
use crate::db::reads::Reads;
use crate::http::body::BodyLimits;
use crate::http::reply::Buffers;
use crate::idempotency::once::Once;

/// Connections and bounds.
pub struct Context {
    /// Connections for what records a step.
    pub pool: Pool,
    /// Lists and durations.
    pub reads: Reads,
    /// Requests that are to be carried out once.
    pub once: Once,
    /// Bounds of request bodies.
    pub body_limits: BodyLimits,
    /// Memory in which lists wait for their readers.
    pub buffers: Buffers,
}
