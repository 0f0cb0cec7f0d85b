//! Passengers: the service's main resource.
//!
//! URLs: `/v1/passengers`, `/v1/passengers/{uuid}`, and the short URLs of the Flask service it replaces
//! (`/passengerlist`, `/getpassenger/{uuid}`, `/postpassenger`, `/putpassenger/{uuid}`, `/deletepassenger/{uuid}`).
//!
//! Invariants: a stored passenger satisfies every rule of `model`, which the table's constraints repeat; its uuid is a
//! version 7 made here, so key order is creation order. Each state has a version that no other state of it ever had.

pub mod bulk;
mod columns;
pub mod context;
pub mod csv;
pub mod generate;
pub mod json;
pub mod list;
pub mod model;
pub mod openapi;
pub mod patch;
mod problem;
pub mod routes;
mod rows;
mod schema;
pub mod store;
pub mod transfer;
mod writes;
