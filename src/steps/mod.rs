//! Deployment steps: records the steps of deployments and reports how long each lasted.
//!
//! URLs: `/v1/steps` and `/v1/steps/durations`.
//!
//! Invariants: a recorded step is never changed, which a trigger on the table enforces. Its time is the database's, so all
//! replicas agree on it, and is never before that of an earlier step of the same component and version; steps with equal times
//! are ordered by their id. A duration is therefore never negative.

pub mod context;
pub mod listing;
pub mod model;
pub mod openapi;
pub mod request;
pub mod routes;
pub mod store;
