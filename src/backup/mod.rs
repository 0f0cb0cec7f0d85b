//! Backups: made while the service runs, checked after they were written, and restored to any instant.
//!
//! A folder holds the backups of one database:
//!
//! ```text
//! lock                      locked by the process that makes a backup
//! 20261126T224501Z/         a complete backup; backup.json lists its contents
//!   base.tar                kind physical: the output of pg_basebackup, with the WAL that it needs
//!   wal/                    and the WAL after it, up to the instant of the hashes
//!   tables/                 kind logical: rows in the format of COPY
//! 20261126T224501Z.partial/ an incomplete backup; unless `lock` is held, it is of no use
//! wal/00000001/             the WAL that `backup --follow` receives, by the timeline at which it began
//! ```
//!
//! A bucket of an object store has the same structure ([`bucket`]).
//!
//! Files whose names end in `.sealed` are encrypted ([`seal`]). Invariant: a directory without `.partial` was written,
//! synced and read again.

#[cfg(feature = "embedded")]
pub mod archive;
#[cfg(feature = "embedded")]
mod base;
pub mod bucket;
pub mod disk;
#[cfg(feature = "embedded")]
pub mod drill;
pub mod folder;
#[cfg(feature = "embedded")]
pub mod follow;
pub mod logical;
#[cfg(feature = "embedded")]
pub mod physical;
pub mod record;
pub mod repository;
pub mod restored;
pub mod runs;
mod scratch;
pub mod seal;
pub mod segments;
#[cfg(feature = "embedded")]
mod spool;
pub mod state;
#[cfg(feature = "embedded")]
pub mod upgrade;
#[cfg(feature = "embedded")]
pub mod wal;
