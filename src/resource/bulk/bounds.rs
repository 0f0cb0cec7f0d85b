//! Limits on the resources that all bulk bodies use together.

use std::time::Duration;

use crate::http::body::BodyLimits;
use crate::http::budget::Budget;
use crate::http::spool::Disk;

/// The limits of bulk bodies.
pub struct Bulk {
    /// Limits of each body.
    pub limits: BodyLimits,
    /// Disk space for bodies while they are received.
    pub disk: Disk,
    /// Turns to store a body.
    pub turns: Budget,
    /// Maximum wait for a turn.
    pub wait: Duration,
}

impl Bulk {
    /// Limits for a pool of this size, with a maximum wait for a turn.
    pub fn new(limits: BodyLimits, disk: Disk, pool_size: u32, wait: Duration) -> Self {
        Self { limits, disk, turns: turns(pool_size), wait }
    }
}

/// Turns to store bodies. A client has one at a time, so a client that sends many bodies at once cannot take every turn.
fn turns(pool_size: u32) -> Budget {
    // Two keep PostgreSQL busy; a small pool must keep connections available for other requests.
    Budget::new("bulk", if pool_size >= 4 { 2 } else { 1 }, 1)
}
