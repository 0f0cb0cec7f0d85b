//! Traces: which requests are sampled, what is recorded of them, and the queue for the exporter.
//!
//! This module does not depend on HTTP, SQL or OTLP. A request that is not sampled costs one check of a flag; without an
//! endpoint for traces there is no [`tracer::Tracer`], and not even that check.

pub mod context;
pub mod current;
pub mod sampler;
pub mod span;
pub mod tracer;
