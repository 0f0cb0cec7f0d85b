//! The API on the wire: the real server on a real PostgreSQL, one database per test.

mod abandoned;
mod air_quality;
mod air_quality_cache;
mod batching;
mod bodies;
mod bulk;
mod conditions;
mod csv_quoting;
mod docs;
mod failures;
mod fate;
mod harness;
mod idempotency;
mod lists;
mod operations;
mod origins;
mod parameters;
mod passengers;
mod polite;
mod pools;
mod process;
mod proxy;
mod redis_server;
mod settings;
mod steps;
mod transfer;
