//! What the handlers of tokens work with.

use crate::db::pool::Pool;
use crate::http::body::BodyLimits;

/// Connections and bounds.
pub struct Context {
    /// Connections.
    pub pool: Pool,
    /// Bounds of request bodies.
    pub body_limits: BodyLimits,
    /// The resources that a scope may name.
    pub resources: Vec<&'static str>,
}
