//! Lists: which ones, in what order, from where on, how many, and in which form; and statistics over them.
//!
//! The parameters follow PostgREST's grammar on a whitelist of columns (those of the description): conditions (`filter`), `order`, and
//! `select`. A page ends in a `cursor`, which names the position behind its last row by values and not by number, so that
//! rows that come or go in front of it move nothing. `keyset` turns an order and a position into ranges that an index can
//! deliver; `sql` puts constant fragments together, in which every value is a parameter; `read` writes rows as they arrive.
//!
//! Invariant: an order is total, because the key is its last column.

mod advice;
mod cursor;
mod filter;
pub mod first;
mod grammar;
mod keyset;
pub(super) mod openapi;
mod order;
pub mod read;
pub(super) mod request;
pub mod routes;
pub mod shape;
mod sql;
mod stats;
mod store;
