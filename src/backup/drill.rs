//! Restore drills: restores a backup into a temporary database, compares it, and removes it.
//!
//! The hashes were computed from the live tables at one instant whose position in WAL is known ([`super::state`]). WAL is
//! replayed up to exactly that position, so every row must be the same.

use std::path::PathBuf;

use super::disk;
use super::folder::Folder;
use super::physical::{self, Until};
use super::record::Backup;
use super::scratch::Scratch;
use super::seal::Key;
use super::{logical, restored, state};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::{Options, Target};
use crate::db::migrate::{self, Tables};
use crate::db::roles;

/// The size of an empty cluster: 39 MiB and a segment of WAL, in release 15.
const CLUSTER_BYTES: u64 = 64 << 20;

/// Restores a physical backup into a temporary PostgreSQL, compares every table, and removes it.
///
/// # Errors
/// When it cannot be restored, or a table differs.
pub async fn physical(folder: &Folder, backup: &Backup, key: Option<&Key>, options: &Options) -> anyhow::Result<()> {
    let scratch = Scratch::within(&std::env::temp_dir(), 0o755)?;
    let options = Options { data_dir: scratch.path().to_path_buf(), ..options.clone() };
    let target = Target::prepare(&options, Some(backup.major))?;
    let (recovered, _) = physical::restore(folder, backup, key, &target, Until::State).await?;
    let mut config = recovered.config();
    config.dbname(&backup.database);
    let client = migrate::connect(&ConnInfo::from_config(config)?).await?;
    client.batch_execute(state::FORMATS).await?;
    backup.expect_same(&state::hashes(&client, &backup.state.columns()).await?)?;
    restored::move_versions(&client).await
}

/// Does the same with a logical backup.
///
/// # Errors
/// As [`physical()`].
pub async fn logical(
    folder: &Folder,
    backup: &Backup,
    key: Option<&Key>,
    options: &Options,
    tables: &dyn Tables,
) -> anyhow::Result<()> {
    let scratch = Scratch::within(&std::env::temp_dir(), 0o755)?;
    let options = Options { data_dir: scratch.path().to_path_buf(), ..options.clone() };
    logical_into(&options, folder, backup, key, tables).await.map(drop)
}

/// Loads a logical backup into a new embedded database, and returns its `DATA_DIR`. The database is built under another name,
/// and gets its own only after every table was compared.
///
/// # Errors
/// As [`logical::restore`]; a directory that is not empty is refused.
pub async fn logical_into(
    options: &Options,
    folder: &Folder,
    backup: &Backup,
    key: Option<&Key>,
    tables: &dyn Tables,
) -> anyhow::Result<PathBuf> {
    // Checked before a cluster is created, which takes some time.
    backup.expect_key(key)?;
    backup.check(&folder.directory(backup))?;
    disk::expect_room(&options.data_dir, CLUSTER_BYTES + backup.bytes())?;
    let target = Target::prepare(options, None)?;
    let made = target.make()?;
    let server = ConnInfo::from_config(made.config())?.with_request_role(roles::REQUESTS);
    logical::restore(&server, folder, backup, key, tables).await?;
    Ok(target.keep(made)?)
}
