//! Backups: made while the service runs, checked after they were written, and restored to any instant.
//!
//! A folder holds the backups of one database:
//!
//! ```text
//! lock                      held by whoever makes a backup
//! 20261126T224501Z/         a backup, whole: backup.json says what is in it
//!   base.tar                kind physical: what pg_basebackup sends, with the WAL that it needs
//!   wal/                    and WAL behind it, up to the instant of the hashes
//!   tables/                 kind logical: rows as COPY writes them
//! 20261126T224501Z.partial/ one in the making, worthless unless somebody is at it
//! wal/00000001/             what `backup --follow` receives, by the timeline at which it began
//! ```
//!
//! A bucket of an object store holds the same ([`bucket`]).
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
pub mod place;
pub mod record;
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
