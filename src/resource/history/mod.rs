//! The history of a resource: who changed which row, when, and what was there before.
//!
//! Each statement that changes rows writes the history as a part of itself (`sql`), so neither is ever there without the other.
//! An entry keeps the values that a change ended: a row as it was at some time is what the next change kept, or the row itself
//! (`state`). Entries are never changed; `expiry` removes old ones.
//!
//! Invariant: the entries of one row ascend by their `id` as its changes followed each other, and each begins at the version with
//! which the one before it ended, because a change draws both while it holds the row's lock.

pub mod expiry;
pub mod openapi;
mod restore;
pub mod routes;
pub mod sql;
mod state;
mod store;
