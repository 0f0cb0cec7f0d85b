//! The shared state of the handlers of steps.

use crate::db::pool::Pool;
use crate::db::reads::Reads;
use crate::http::body::BodyLimits;
use crate::http::reply::Buffers;
use crate::idempotency::once::Once;

/// Connections and limits.
pub struct Context {
    /// Connections for recording steps.
    pub pool: Pool,
    /// Connections for lists and durations.
    pub reads: Reads,
    /// Idempotent requests.
    pub once: Once,
    /// Limits of request bodies.
    pub body_limits: BodyLimits,
    /// Memory for list chunks that wait for their clients.
    pub buffers: Buffers,
}
