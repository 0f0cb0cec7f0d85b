//! API tokens over HTTP, for principals with the scope `admin`.
//!
//! URLs: `/v1/tokens`, `/v1/tokens/{id}` and `/v1/tokens/{id}/rotate`. A token is only in the response that creates it;
//! therefore no such response is stored for an `Idempotency-Key`. If the response is lost, the token must be revoked and
//! another one created.

pub mod context;
mod model;
pub mod openapi;
pub mod routes;
