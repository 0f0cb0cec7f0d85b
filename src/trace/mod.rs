//! Traces: which requests are recorded, what is recorded of them, and where it waits for whoever delivers it.
//!
//! Nothing here knows HTTP, SQL or OTLP. A request that is not sampled costs a look at a flag; without an endpoint for traces
//! there is no [`tracer::Tracer`], and not even that.

pub mod context;
pub mod current;
pub mod sampler;
pub mod span;
pub mod tracer;
