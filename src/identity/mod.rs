//! The principal of a request, and where tokens come from.
//!
//! URLs: `/v1/principal`, and `/.well-known/oauth-protected-resource` (RFC 9728) if there is an identity provider.

pub mod openapi;
pub mod routes;
