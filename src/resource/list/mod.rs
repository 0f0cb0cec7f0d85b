//! Lists: filters, order, pages, and formats; and statistics over lists.
//!
//! The parameters follow PostgREST's grammar, limited to the columns of the description: conditions (`filter`), `order`, and
//! `select`. A page ends in a `cursor`, which identifies the position after its last row by values instead of an offset, so
//! that inserted or deleted rows before it do not shift pages. `keyset` turns an order and a position into ranges that an index
//! can return; `sql` combines constant fragments, with every value as a parameter; `read` writes rows as they arrive.
//!
//! Invariant: an order is total, because its last column is the key.

mod cursor;
mod filter;
pub mod first;
mod grammar;
mod keyset;
pub(super) mod openapi;
mod order;
pub mod read;
pub mod request;
pub mod routes;
pub mod shape;
mod sql;
mod stats;
mod store;
mod suggestion;
