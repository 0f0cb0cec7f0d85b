//! Operations: endpoints for probes and monitoring.
//!
//! URLs: `/livez`, `/readyz`, and the greetings of the services that this one replaces (`/hello`, `/zero`, `/helloworld`);
//! `/metrics` on a separate listener.

pub mod health;
pub mod metrics;
pub mod openapi;
pub mod probe;
pub mod process;
pub mod runtime;
