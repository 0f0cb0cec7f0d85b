//! The API on the wire: the real server on a real PostgreSQL, one database per test.

mod batching;
mod bodies;
mod failures;
mod harness;
mod operations;
mod passengers;
mod settings;
mod transfer;
