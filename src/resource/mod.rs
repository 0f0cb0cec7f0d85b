//! The engine: turns a description into a table, SQL statements and routes. It contains nothing specific to any table.
//!
//! `description` is the parsed file; `definition` is what is built from it at startup: `column`s with their rules, `value`s in
//! each representation, and `sql`. Requests go from `routes` to `store` (single rows, batched), `list` (many rows) or `bulk`
//! (many new rows).
//!
//! Invariants: a stored row satisfies every rule of its description, and the table's constraints repeat those rules. Its uuid
//! is a version 7 UUID generated here, so key order is creation order. A version is never used twice for the same row.

pub mod actor;
#[cfg(test)]
pub mod arbitrary;
mod array_element;
mod arrays;
pub mod bulk;
pub mod check;
pub mod column;
pub mod context;
pub mod csv;
mod decimal;
pub mod definition;
pub mod description;
mod examples;
pub mod generate;
pub mod history;
mod identifier;
pub mod infer;
pub mod json;
pub mod kind;
pub mod list;
pub mod long_rows;
pub mod naming;
pub mod openapi;
pub mod operations;
mod parameters;
mod parser;
mod pattern;
mod problem;
pub mod registry;
pub mod representation;
pub mod routes;
pub mod row;
pub mod schema;
pub mod shorthand;
mod single_row;
pub mod sketch;
mod sql;
pub mod store;
pub mod time;
mod unnamed;
pub mod value;
mod wording;
pub mod writes;
