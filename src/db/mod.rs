//! PostgreSQL, without HTTP: connection settings, pool, sessions, migrations, seed, bulk copies and errors.
//!
//! This module does not depend on any resource or status code. Every query and every checkout has a deadline, and a lost
//! connection is replaced without a restart.

pub mod analyze;
pub mod attempt;
pub mod batch;
pub mod connect;
pub mod conninfo;
pub mod copy;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod error;
pub mod error_chain;
pub mod fair_queue;
pub mod generation;
pub mod listen;
mod manager;
pub mod migrate;
pub mod operation;
pub mod planner;
pub mod pool;
pub mod pooled_session;
pub mod position;
pub mod positions;
pub mod reads;
pub mod replica;
pub mod roles;
pub mod seed;
pub mod session;
pub mod single_flight;
pub mod tls;
pub mod version;
pub mod wait_time;
