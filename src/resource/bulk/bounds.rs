//! What bodies of many rows may take together.

use std::time::Duration;

use crate::http::body::BodyLimits;
use crate::http::budget::Budget;
use crate::http::spool::Disk;

/// The bounds of bulk bodies.
pub struct Bulk {
    /// Of each.
    pub limits: BodyLimits,
    /// Where they are kept while they arrive.
    pub disk: Disk,
    /// Turns at storing them.
    pub turns: Budget,
    /// Longest wait for a turn.
    pub wait: Duration,
}

impl Bulk {
    /// Bounds in front of a pool of this size in which nobody waits longer than `wait`.
    pub fn new(limits: BodyLimits, disk: Disk, pool_size: u32, wait: Duration) -> Self {
        Self { limits, disk, turns: turns(pool_size), wait }
    }
}

/// Turns at storing bodies; one client has one at a time, so that whoever sends much at once leaves one to others.
fn turns(pool_size: u32) -> Budget {
    // Two keep PostgreSQL busy; a small pool must have connections left for everybody else.
    Budget::new("bulk", if pool_size >= 4 { 2 } else { 1 }, 1)
}
