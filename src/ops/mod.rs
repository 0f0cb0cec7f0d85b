//! Operations: what probes and monitoring ask.
//!
//! URLs: `/livez`, `/readyz`, and the greetings of the service this one replaces (`/hello`, `/zero`); `/metrics` on a
//! listener of its own.

pub mod health;
pub mod metrics;
pub mod probe;
