//! Tokens of the API's own over HTTP, for whoever has the scope `admin`.
//!
//! URLs: `/v1/tokens`, `/v1/tokens/{id}` and `/v1/tokens/{id}/rotate`. A token is in the answer to the request that makes it
//! and nowhere else; so no such answer is kept for an `Idempotency-Key`. A token whose answer was lost is revoked, and
//! another one made.

pub mod context;
mod model;
pub mod openapi;
pub mod routes;
