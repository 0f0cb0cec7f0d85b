//! WAL after a backup: received from the server, listed, and laid out for replay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::disk::{self, name_of, unreadable, unwritable};
use super::folder::{Folder, is_segment, place};
use super::record::{Backup, Wal};
use super::seal::{self, Key, SUFFIX};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::Programs;
use crate::short_file::{self, SECRET_MAX_BYTES};

/// The suffix of the name of an incomplete segment.
pub const PARTIAL: &str = ".partial";
/// The file that states up to when WAL was received.
const RECEIVED: &str = "received.json";
/// Pause between two checks of a program that does not report its progress.
const POLL: Duration = Duration::from_millis(20);

/// An empty transaction: its commit record follows everything committed before, and has its time.
pub const HEARTBEAT: &str = "select pg_current_xact_id()::text, clock_timestamp()";

/// Up to when WAL was received.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    /// Everything committed by then, by the database's clock, was received.
    pub at: String,
    /// The cluster's system identifier.
    pub system: String,
}

impl Received {
    /// Reads it from a directory; none when no WAL was received into it.
    fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(RECEIVED);
        let text = match short_file::read(&path, SECRET_MAX_BYTES) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| unreadable(&path, error))?,
        };
        serde_json::from_slice(&text).map(Some).with_context(|| {
            format!("{} is damaged; remove it, and follow again to have it written anew", path.display())
        })
    }

    /// Writes it to a directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let (path, new) = (directory.join(RECEIVED), directory.join("received.new"));
        let text = serde_json::to_string(self).context("cannot write what was received")?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(|error| {
            let _ = fs::remove_file(&new); // incomplete
            unwritable(&path, error)
        })
    }
}

/// Starts `pg_receivewal`; its error output is piped.
///
/// # Errors
/// When it cannot be run.
pub fn receiver(programs: &Programs, server: &ConnInfo, into: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
    programs
        .command("pg_receivewal", into)?
        .args(["--directory=.", "--synchronous", "--no-password"])
        .args(arguments)
        .envs(server.variables())
        .env("PGAPPNAME", "pycrudapi backup")
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
    let mut child = receiver(programs, server, into, &["--no-loop", &end])?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for pg_receivewal")? {
            if status.success() {
                return Ok(());
            }
            let said = io::read_to_string(child.stderr.take().expect("piped")).unwrap_or_default();
            return Err(disk::told_full(anyhow!("pg_receivewal failed ({status}): {}", said.trim()), Some(into)));
        }
        // It ends when it has received a record after that place, and an idle server writes none.
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
            let is_needed = is_segment(&bare) && bare.len() == 24 && place(&bare) >= place(&wal.first);
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
        let place = into.join(&name);
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&place);
        let mut file = opened.map_err(|error| unwritable(&place, error))?;
        // A history that is not encrypted as the backup is stays empty: its name alone marks the timeline as used.
        if is_sealed(&path) == backup.key.is_some() {
            let mut from = seal::open(&path, key)?;
            let copied = io::copy(&mut from, &mut file).with_context(|| format!("cannot unpack {}", path.display()));
            copied.map_err(|error| disk::told_full(error, Some(into)))?;
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

/// Up to when a backup can be brought back: to its own instant, or to what was received if nothing is missing between.
///
/// # Errors
/// When the folder cannot be read.
pub fn reach(folder: &Folder, backup: &Backup) -> anyhow::Result<Timestamp> {
    let own = backup.state.instant()?;
    let Some(wal) = &backup.wal else { return Ok(own) };
    let directory = folder.wal_of(&wal.first);
    let Some(received) = Received::read(&directory)? else { return Ok(own) };
    if received.system != backup.system {
        return Ok(own);
    }
    let number = |name: &str| {
        let digits = |range| u64::from_str_radix(&name[range], 16).unwrap_or_default();
        digits(8..16) * ((1 << 32) / wal.segment_bytes) + digits(16..24)
    };
    let names = segments(folder, backup, wal)?;
    let mut received_numbers: Vec<u64> = names
        .iter()
        .filter(|(name, path)| is_segment(name) && path.starts_with(&directory))
        .map(|(name, _)| number(name))
        .collect();
    received_numbers.sort_unstable();
    received_numbers.dedup();
    let last = number(&wal.last);
    received_numbers.retain(|number| *number >= last);
    let is_whole =
        received_numbers.first() == Some(&last) && received_numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let received: Timestamp = received.at.parse().context("what was received cannot be read")?;
    Ok(if is_whole { received.max(own) } else { own })
}
