//! Who asks, and what they may do: scopes, principals and the credentials that prove them.
//!
//! It knows nothing of HTTP: what is made of a refusal is said in `http::access`.

pub mod authenticator;
pub mod issuer;
pub mod principal;
pub mod scope;
pub mod tokens;
