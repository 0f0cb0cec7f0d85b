//! The history of a resource: who changed which row, when, and its previous values.
//!
//! Each statement that changes rows also writes the history (`sql`), so a change never exists without its entry.
//! An entry holds the values before a change. The state of a row at an instant is held by the first later entry, or by the row
//! itself (`state`). Entries are never changed; `expiry` removes old ones.
//!
//! Invariant: the `id`s of a row's entries ascend in the order of its changes, and each entry starts at the version at which
//! the previous one ended, because a change draws both while it holds the row lock.

pub mod expiry;
pub mod openapi;
mod restore;
pub mod routes;
pub mod sql;
mod state;
mod store;
