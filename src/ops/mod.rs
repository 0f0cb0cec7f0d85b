//! Operations: what probes and monitoring ask.
//!
//! URLs: `/`, `/livez`, `/readyz`, and the greetings of the services this one replaces (`/hello`, `/zero`,
//! `/helloworld`); `/metrics` on a listener of its own.

pub mod health;
pub mod metrics;
pub mod openapi;
pub mod probe;
pub mod process;
pub mod runtime;
