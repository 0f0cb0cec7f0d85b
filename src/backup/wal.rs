//! WAL after a backup: received from the server, and copied to a directory for replay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio_postgres::Client;

use super::disk::{self, name_of, unreadable, unwritable};
use super::folder::{Folder, is_segment, segment_position};
use super::record::{Backup, Wal};
use super::seal::{self, Key, SUFFIX};
use super::segments::{PARTIAL, offset};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::Programs;

/// The name of a session that receives WAL.
pub const NAME: &str = "pycrudapi backup";
/// Pause between two checks of a program that does not report its progress.
const POLL: Duration = Duration::from_millis(20);

/// An empty transaction: its commit record follows everything committed before, and has its time.
pub const HEARTBEAT: &str = "select pg_current_xact_id()::text, clock_timestamp()";

/// Starts `pg_receivewal` with a name for `pg_stat_replication`; its error output is piped.
///
/// # Errors
/// When it cannot be run.
pub fn receiver(
    programs: &Programs,
    server: &ConnInfo,
    into: &Path,
    name: &str,
    arguments: &[&str],
) -> anyhow::Result<Child> {
    programs
        .command("pg_receivewal", into)?
        .args(["--directory=.", "--synchronous", "--no-password"])
        .args(arguments)
        .envs(server.variables())
        .env("PGAPPNAME", name)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run pg_receivewal")
}

/// Receives WAL after the segments in the directory, until everything was received that was committed before this call.
///
/// # Errors
/// When `pg_receivewal` fails.
pub async fn receive_until_now(
    programs: &Programs,
    server: &ConnInfo,
    client: &Client,
    into: &Path,
) -> anyhow::Result<()> {
    client.query_one(HEARTBEAT, &[]).await.context("the connection to postgres was lost")?;
    let end = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?;
    let end = format!("--endpos={}", end.try_get::<_, String>(0)?);
    let mut child = receiver(programs, server, into, NAME, &["--no-loop", &end])?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for pg_receivewal")? {
            if status.success() {
                return Ok(());
            }
            let said = io::read_to_string(child.stderr.take().expect("piped")).unwrap_or_default();
            return Err(disk::explain_disk_full(
                anyhow!("pg_receivewal failed ({status}): {}", said.trim()),
                Some(into),
            ));
        }
        // It ends when it has received a record after that position, and an idle server writes none.
        client.query_one(HEARTBEAT, &[]).await.context("the connection to postgres was lost")?;
        tokio::time::sleep(POLL).await; // polling: it does not report its progress
    }
}

/// The segments for a backup by their name without suffixes: its own and the received ones. For an encrypted backup only
/// encrypted segments are used, because others may have been put there by someone without the key; for an unencrypted one, only
/// unencrypted.
fn segments(folder: &Folder, backup: &Backup, wal: &Wal) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    // Received segments replace the backup's own, the last of which may be incomplete; a complete segment replaces an
    // incomplete one.
    for directory in [folder.directory(backup).join("wal"), folder.wal_of(&wal.first)] {
        let mut paths = disk::entries(&directory)?;
        paths.retain(|path| is_sealed(path) == backup.key.is_some());
        let is_whole = |path: &PathBuf| !path.to_string_lossy().contains(PARTIAL);
        paths.sort_by_key(|path| (is_whole(path), path.clone()));
        for path in paths {
            let name = name_of(&path);
            let bare = name.trim_end_matches(SUFFIX).trim_end_matches(PARTIAL).to_owned();
            let is_whole_or_piece = bare.len() == 24 || offset(&bare).is_some();
            let is_needed =
                is_segment(&bare) && is_whole_or_piece && segment_position(&bare) >= segment_position(&wal.first);
            if is_needed || bare.ends_with(".history") {
                found.insert(bare, path);
            }
        }
    }
    Ok(found)
}

/// Copies all WAL after a backup to a directory for replay, and returns the timeline that it leads to. The histories of all
/// other timelines are copied as well, so that the restored cluster chooses an unused one.
///
/// # Errors
/// When a file cannot be read or written.
pub fn lay_out(folder: &Folder, backup: &Backup, key: Option<&Key>, into: &Path) -> anyhow::Result<u32> {
    let Some(wal) = &backup.wal else { bail!("backup {} has no WAL", backup.id) };
    let own = segments(folder, backup, wal)?;
    let last = own.keys().filter(|name| is_segment(name)).map(|name| &name[..8]).max().unwrap_or(&wal.first[..8]);
    let timeline = u32::from_str_radix(last, 16).context("a segment of WAL has no timeline")?;
    for (name, path) in histories(folder)?.into_iter().chain(own) {
        let is_segment = is_segment(&name);
        let target = into.join(if is_segment { &name[..24] } else { name.as_str() });
        let offset = offset(&name);
        let opened = File::options().write(true).create(true).truncate(offset.is_none()).mode(0o600).open(&target);
        let mut file = opened.map_err(|error| unwritable(&target, error))?;
        file.seek(SeekFrom::Start(offset.unwrap_or_default())).map_err(|error| unwritable(&target, error))?;
        // A history that is not encrypted as the backup is stays empty: its name alone marks the timeline as used.
        if is_sealed(&path) == backup.key.is_some() {
            let named = path.strip_prefix(folder.path()).unwrap_or(&path).to_string_lossy();
            let mut from = seal::open(&path, &named, key)?;
            let copied = io::copy(&mut from, &mut file).with_context(|| format!("cannot unpack {}", path.display()));
            copied.map_err(|error| disk::explain_disk_full(error, Some(into)))?;
        }
        // PostgreSQL requires segments to have their full length.
        if is_segment && file.metadata().is_ok_and(|found| found.len() < wal.segment_bytes) {
            file.set_len(wal.segment_bytes).map_err(|error| unwritable(&target, error))?;
        }
    }
    Ok(timeline)
}

/// The total length of what [`lay_out`] copies.
///
/// # Errors
/// When the folder cannot be read.
pub fn bytes(folder: &Folder, backup: &Backup) -> anyhow::Result<u64> {
    let Some(wal) = &backup.wal else { return Ok(0) };
    let mut bytes = 0;
    for path in segments(folder, backup, wal)?.values() {
        bytes += fs::metadata(path).map_err(|error| unreadable(path, error))?.len();
    }
    Ok(bytes)
}

fn is_sealed(path: &Path) -> bool {
    path.to_string_lossy().ends_with(SUFFIX)
}

/// The histories of timelines that were received.
fn histories(folder: &Folder) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let named = folder.received()?.into_iter().map(|path| (name_of(&path).trim_end_matches(SUFFIX).to_owned(), path));
    Ok(named.filter(|(name, _)| name.ends_with(".history")).collect())
}
