//! The context of the token handlers.

use crate::db::pool::Pool;
use crate::http::body::BodyLimits;

/// Connections and limits.
pub struct Context {
    /// Connections.
    pub pool: Pool,
    /// Limits of request bodies.
    pub body_limits: BodyLimits,
    /// The resources that scopes may name.
    pub resources: Vec<&'static str>,
}
