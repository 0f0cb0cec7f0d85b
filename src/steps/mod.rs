//! Deployment steps: how long does each phase of a deployment take?
//!
//! URLs: `/v1/steps` and `/v1/steps/durations`.
//!
//! Invariants: a step is recorded and never changed, which the table enforces by a trigger. Its time is the database's,
//! so copies of the service agree on it, and is never before that of an earlier step of the same component and version;
//! steps of the same instant are ordered by their id. A duration is therefore never negative.

pub mod context;
pub mod listing;
pub mod model;
pub mod openapi;
pub mod request;
pub mod routes;
pub mod store;
