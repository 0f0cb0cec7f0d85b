//! PostgreSQL, without HTTP: connection settings, pool, sessions, migrations, seed, bulk copies and errors.
//!
//! Nothing here knows a resource or a status code. Every query has a deadline, every checkout has one too,
//! and a lost connection is replaced without a restart.

pub mod analyze;
pub mod attempt;
pub mod batch;
pub mod connect;
pub mod conninfo;
pub mod copy;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
pub mod lease;
pub mod listen;
mod manager;
pub mod migrate;
pub mod operation;
pub mod pool;
pub mod position;
pub mod positions;
pub mod reads;
pub mod replica;
pub mod roles;
pub mod seed;
pub mod session;
pub mod single_flight;
pub mod term;
pub mod tls;
pub mod told;
pub mod turns;
pub mod version;
pub mod wait_time;
