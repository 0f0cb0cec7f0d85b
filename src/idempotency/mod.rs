//! Safe retry: a request that carries an `Idempotency-Key` is carried out once, however often it is sent.
//!
//! The first answer is kept in the transaction of what the request did, so there is no moment in which one is there
//! without the other, whatever is killed; every replica finds it. A retry gets that answer again. The same key with
//! another request is refused, and so is a retry while the first attempt is still at work. Only successes are kept:
//! whoever was told to correct a request may send the corrected one with the same key.
//!
//! [`once::Once`] is what routes use. A route that writes in a transaction of its own uses [`store::claim`] at its
//! beginning and [`store::keep`] at its end.

pub mod answer;
pub mod bound;
pub mod expiry;
pub mod once;
pub mod openapi;
pub mod request;
pub mod store;
