//! Who asks, as the service sees it, and where tokens come from.
//!
//! URLs: `/v1/principal`, and `/.well-known/oauth-protected-resource` (RFC 9728) where there is an identity provider.

pub mod openapi;
pub mod routes;
