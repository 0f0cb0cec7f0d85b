//! Safe retries: a request with an `Idempotency-Key` is executed once, however often it is sent.
//!
//! The first response is stored in the transaction of the request's changes, so neither exists without the other whatever
//! process is killed, and every replica finds it. A retry gets that response again. The same key with another request is
//! rejected, and so is a retry while the first attempt is in progress. Only successful responses are stored: a corrected
//! request may reuse the key of one that was rejected.
//!
//! Routes use [`once::Once`]. A route with its own transaction calls [`store::claim`] at its start and [`store::keep`] at its
//! end.

pub mod answer;
pub mod expiry;
pub mod key_limit;
pub mod once;
pub mod openapi;
pub mod request;
pub mod store;
