//! Receives WAL into a folder continuously, so that a backup can be restored to any later instant.
//!
//! `pg_receivewal --synchronous` writes what the server flushes; a replication slot keeps WAL on the server while nothing is
//! receiving. Once a second an empty transaction commits: when its record was received, so was everything before it, and its
//! time is stored.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tokio_postgres::Client;

use super::disk::{self, name_of, unreadable, unwritable};
use super::folder::{self, Folder, WAL};
use super::physical::{Cluster, expect_same_cluster};
use super::record::Wal;
use super::scratch;
use super::seal::{self, Key, SUFFIX};
use super::segments::{PARTIAL, Received};
use super::wal::{self, NAME};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::{Options, Programs};
use crate::db::migrate;

/// The replication slot that keeps WAL on the server until it was received.
pub const SLOT: &str = "pycrudapi_backup";
/// Creates the slot unless it exists.
pub const MAKE_SLOT: &str = "select case
    when exists (select from pg_replication_slots where slot_name = $1) then null
    else pg_create_physical_replication_slot($1, true) end is null";
/// Whether the server has removed WAL that was not received; and whether everything up to a position was received.
const SLOT_IS: &str = "select wal_status = 'lost' from pg_replication_slots where slot_name = $1";
const IS_RECEIVED: &str = "select restart_lsn >= $2::text::pg_lsn from pg_replication_slots where slot_name = $1";
/// Pause between two empty commits, and between two attempts to reach the server.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Receives WAL into a folder.
pub struct Follower<'a> {
    server: &'a ConnInfo,
    programs: Programs,
    /// The destination of the WAL.
    directory: PathBuf,
    key: Option<&'a Key>,
    cluster: Cluster,
    /// Where `pg_receivewal` writes: the destination, or a private directory from which files are encrypted into it.
    into: PathBuf,
    receiver: Child,
    client: Client,
    _lock: folder::Lock,
}

impl<'a> Follower<'a> {
    /// Starts receiving.
    ///
    /// # Errors
    /// When another process receives into the same folder, or the server does not allow it.
    pub async fn start(
        server: &'a ConnInfo,
        options: &Options,
        folder: &Folder,
        key: Option<&'a Key>,
    ) -> anyhow::Result<Self> {
        let lock = folder::lock(&folder.path().join("wal.lock"), "another process follows into the same folder")?;
        let client = migrate::connect(server).await.context("cannot connect to the database; check DATABASE_URL")?;
        let cluster = Cluster::read(&client).await?;
        expect_same_cluster(&folder.path().display(), &folder.list()?, &cluster.system)?;
        let programs = Programs::find(options, cluster.major)?;
        let directory = folder.wal_of(&cluster.timeline);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| unwritable(&directory, error))?;
        client.query_one(MAKE_SLOT, &[&SLOT]).await.context("cannot make a replication slot")?;
        let into = match key {
            Some(_) => scratch::private(&format!("pycrudapi-wal-{}-{}", cluster.system, cluster.timeline))?,
            None => directory.clone(),
        };
        let receiver = wal::receiver(&programs, server, &into, NAME, &["--no-loop", &format!("--slot={SLOT}")])?;
        Ok(Self { server, programs, directory, key, cluster, into, receiver, client, _lock: lock })
    }

    /// Whether the folder has no backup of this timeline, without which WAL is of no use.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn needs_backup(&self, folder: &Folder) -> anyhow::Result<bool> {
        let is_ours = |wal: &Wal| wal.first.starts_with(&self.cluster.timeline);
        Ok(!folder.list()?.iter().any(|backup| backup.wal.as_ref().is_some_and(is_ours)))
    }

    /// Receives until it fails; `each` is called with every instant up to which everything was received.
    ///
    /// # Errors
    /// When WAL was lost, or the folder cannot be written.
    pub async fn run(&mut self, mut each: impl AsyncFnMut(Timestamp) -> anyhow::Result<()>) -> anyhow::Result<()> {
        loop {
            match self.receive_to_now().await {
                Ok(at) => each(at).await?,
                Err(error) if error.downcast_ref::<tokio_postgres::Error>().is_some() || self.client.is_closed() => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the server is unreachable; following resumes when it is back"
                    );
                }
                Err(error) => return Err(error),
            }
            // Polling: the server announces neither new WAL to this session, nor that it is back.
            tokio::time::sleep(PAUSE).await;
            self.keep_receiving().await?;
        }
    }

    /// Waits until everything was received that was committed before this call.
    async fn receive_to_now(&mut self) -> anyhow::Result<Timestamp> {
        let at: Timestamp = self.client.query_one(wal::HEARTBEAT, &[]).await?.try_get(1)?;
        let end: String = self.client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.try_get(0)?;
        loop {
            let received = self.client.query_one(IS_RECEIVED, &[&SLOT, &end]).await?;
            if received.try_get::<_, Option<bool>>(0)? == Some(true) {
                break;
            }
            self.keep_receiving().await?;
            tokio::time::sleep(Duration::from_millis(20)).await; // polling: only the server has its progress
        }
        self.ship()?;
        Received { at: at.to_string(), system: self.cluster.system.clone() }.write(&self.directory)?;
        Ok(at)
    }

    /// Restarts the receiver when it has ended, and reconnects when the session was lost.
    async fn keep_receiving(&mut self) -> anyhow::Result<()> {
        if self.client.is_closed() {
            match migrate::connect(self.server).await {
                Ok(client) => self.client = client,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the server is not back yet");
                    return Ok(());
                }
            }
        }
        if self.receiver.try_wait().context("cannot wait for pg_receivewal")?.is_none() {
            return Ok(());
        }
        let said = std::io::read_to_string(self.receiver.stderr.take().expect("piped")).unwrap_or_default();
        let lost = self.client.query_opt(SLOT_IS, &[&SLOT]).await?;
        let is_lost = lost.is_some_and(|row| row.try_get(0).unwrap_or(false));
        let remedy =
            format!("move {} away, and follow again, which begins with a new backup", self.directory.display());
        expect_restartable(&said, is_lost, &self.into, &remedy)?;
        let arguments = ["--no-loop", &format!("--slot={SLOT}")];
        self.receiver = wal::receiver(&self.programs, self.server, &self.into, NAME, &arguments)?;
        Ok(())
    }

    /// The name of a received file in the folder.
    fn named(&self, path: &Path) -> String {
        format!("{WAL}/{}/{}", self.cluster.timeline, name_of(path))
    }

    /// Encrypts what was received into the folder, and removes here all complete segments but the last.
    fn ship(&self) -> anyhow::Result<()> {
        let Some(key) = self.key else { return Ok(()) };
        let entries = fs::read_dir(&self.into).map_err(|error| unreadable(&self.into, error))?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name.starts_with(|letter: char| letter.is_ascii_hexdigit()));
        names.sort();
        let wal = &self.directory;
        for name in &names {
            let target = wal.join(format!("{name}{SUFFIX}"));
            let is_partial = name.ends_with(PARTIAL);
            let from = self.into.join(name);
            if (is_partial || !target.exists()) && !seal_into(&from, &target, &self.named(&target), key)? {
                continue;
            }
            // The incomplete segment that this one replaces.
            let part = wal.join(format!("{name}{PARTIAL}{SUFFIX}"));
            if part.exists() {
                fs::remove_file(&part).map_err(|error| unwritable(&part, error))?;
            }
        }
        folder::sync(wal)?;
        // pg_receivewal continues after the last complete segment in its directory.
        let whole: Vec<&String> = names.iter().filter(|name| folder::is_segment(name) && name.len() == 24).collect();
        for name in whole.iter().rev().skip(1) {
            let path = self.into.join(name);
            fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
        }
        Ok(())
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        let _ = self.receiver.kill(); // it may have ended
        let _ = self.receiver.wait();
    }
}

/// Reports why `pg_receivewal` ended, when a restart cannot help.
///
/// # Errors
/// When the server has removed WAL, or `pg_receivewal` cannot write.
pub fn expect_restartable(said: &str, is_lost: bool, into: &Path, remedy: &str) -> anyhow::Result<()> {
    if is_lost || ["has already been removed", "is not in this server's history"].iter().any(|sign| said.contains(sign))
    {
        return Err(gone(said.trim(), remedy));
    }
    if disk::says_full(said) || said.contains("Permission denied") {
        let failure = anyhow!("pg_receivewal cannot write {}: {}", into.display(), said.trim());
        return Err(disk::explain_disk_full(failure, Some(into)));
    }
    tracing::warn!(reason = said.trim(), "pg_receivewal ended; starting it again");
    Ok(())
}

/// The error for WAL that the server removed before it was received.
pub fn gone(reason: &str, remedy: &str) -> anyhow::Error {
    anyhow!(
        "WAL that was not received is gone from the server: {reason}; run `select pg_drop_replication_slot('{SLOT}')`, {remedy}"
    )
}

/// Encrypts a file; false when it does not exist, because pg_receivewal renames a segment when it is complete.
fn seal_into(from: &Path, target: &Path, name: &str, key: &Key) -> anyhow::Result<bool> {
    let mut text = match seal::open(from, name, None) {
        Err(_) if !from.exists() => return Ok(false),
        opened => opened?,
    };
    let new = target.with_extension("new");
    let _ = fs::remove_file(&new); // left by an interrupted run
    let written = seal::Writer::create(&new, name, Some(key)).and_then(|mut writer| {
        std::io::copy(&mut text, &mut writer)?;
        writer.finish()?;
        fs::rename(&new, target)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&new); // incomplete
        unwritable(target, error)
    })?;
    Ok(true)
}
