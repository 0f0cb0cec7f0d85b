//! The engine: what a description says, as a table, statements and routes. It knows no table of its own.
//!
//! A `description` is the file; `definition` is what is made of it at the start: `column`s with their rules, `value`s in each
//! form, and `sql`. Requests go from `routes` to `store` (single rows, batched), `list` (many rows) or `bulk` (many new rows).
//!
//! Invariants: a stored row satisfies every rule of its description, which the table's constraints repeat; its uuid is a
//! version 7 made here, so key order is creation order. Each state has a version that no other state of it ever had.

#[cfg(test)]
pub mod arbitrary;
mod arrays;
pub mod bulk;
pub mod by;
pub mod check;
pub mod column;
pub mod context;
pub mod csv;
mod decimal;
pub mod definition;
pub mod description;
mod examples;
mod form;
pub mod generate;
pub mod history;
mod identifier;
pub mod infer;
pub mod json;
pub mod kind;
pub mod list;
mod nameless;
pub mod naming;
mod one;
pub mod openapi;
pub mod operations;
mod own;
mod parameters;
mod problem;
pub mod registry;
pub mod representation;
pub mod routes;
pub mod row;
pub mod schema;
pub mod shorthand;
pub mod sketch;
mod sql;
pub mod store;
pub mod time;
pub mod value;
mod wording;
pub mod writes;
