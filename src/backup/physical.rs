//! Physical backups: copies a whole cluster while it runs, and restores it to any instant.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio_postgres::Client;

use super::base::{self, TAR};
use super::disk::{self, name_of, unwritable};
use super::folder::{Folder, Lock, is_segment};
use super::record::{Backup, Kind, Wal};
use super::scratch::Scratch;
use super::seal::{self, Key, SUFFIX};
use super::{state, wal};
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::{Options, Programs, Server, Target};
use crate::db::migrate;

/// Keeps the WAL of a backup on the server while it is made; the slot is dropped with the session.
const HOLD_WAL: &str = "select pg_create_physical_replication_slot('pycrudapi_' || pg_backend_pid(), true, true)";
const CLUSTER: &str = "select current_setting('server_version'), current_setting('server_version_num')::int / 10000,
    system_identifier::text, current_database()::text,
    (select setting::bigint from pg_settings where name = 'wal_segment_size'),
    lpad(to_hex(timeline_id), 8, '0')
    from pg_control_system(), pg_control_checkpoint()";
/// Why a role cannot copy the cluster; null when it can.
const OBSTACLE: &str = "select case
    when not (rolsuper or rolreplication) then
        format('%I may not copy the cluster; let it: alter role %1$I replication', current_user)
    when current_setting('wal_level') = 'minimal' then
        'the server writes too little WAL; alter system set wal_level = replica, and restart it'
    when current_setting('max_wal_senders')::int < 2 or current_setting('max_replication_slots')::int < 1 then
        'the server lets nobody copy it; alter system set max_wal_senders = 10, alter system set max_replication_slots = 10, and restart it'
    end from pg_roles where rolname = current_user";

/// A cluster's identity and versions.
#[derive(Debug)]
pub struct Cluster {
    /// Its system identifier.
    pub system: String,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Its timeline, in the format in which names of segments begin with it.
    pub timeline: String,
    /// The length of a segment of WAL.
    pub segment_bytes: u64,
    version: String,
    database: String,
}

impl Cluster {
    /// Reads them from the server.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let row = client.query_one(CLUSTER, &[]).await.context("cannot read the cluster's version")?;
        Ok(Self {
            version: row.try_get(0)?,
            major: u32::try_from(row.try_get::<_, i32>(1)?).context("the server has no version")?,
            system: row.try_get(2)?,
            database: row.try_get(3)?,
            timeline: row.try_get::<_, String>(5)?.to_uppercase(),
            segment_bytes: u64::try_from(row.try_get::<_, i64>(4)?).context("segments of WAL have no length")?,
        })
    }
}

/// Where the replay of WAL ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// At the instant of which the backup has hashes.
    State,
    /// At this instant.
    Instant(Timestamp),
    /// At the end of WAL.
    End,
}

/// Why this session's role cannot make a physical backup of this server; none when it can.
///
/// # Errors
/// When the connection is lost.
pub async fn obstacle(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    client.query_one(OBSTACLE, &[]).await?.try_get(0)
}

/// Makes a backup.
///
/// # Errors
/// With the cause and the remedy; nothing of the backup remains.
pub async fn make(
    server: &ConnInfo,
    options: &Options,
    folder: &Folder,
    key: Option<&Key>,
    lock: &Lock,
) -> anyhow::Result<Backup> {
    let client = migrate::connect(server).await.context("cannot connect to the database; check DATABASE_URL")?;
    if let Some(obstacle) = obstacle(&client).await.context("cannot read the role")? {
        bail!("{obstacle}; or make a logical backup with --kind logical");
    }
    let cluster = Cluster::read(&client).await?;
    expect_same_cluster(&folder.path().display(), &folder.list()?, &cluster.system)?;
    let programs = Programs::find(options, cluster.major)?;
    let partial = folder.begin(lock)?;
    client.query_one(HOLD_WAL, &[]).await.context("cannot keep WAL on the server while it is copied")?;
    let suffix = if key.is_some() { SUFFIX } else { "" };
    let tar = format!("{TAR}{suffix}");
    let path = partial.path().join(&tar);
    let written = base::write(&programs, server, &partial.id, &path, key)?;

    // WAL after it, unencrypted at first, in a directory that only this user can read.
    let clear = match key {
        Some(_) => Scratch::within(&std::env::temp_dir(), 0o700)?,
        None => Scratch::within(partial.path(), 0o700)?,
    };
    let contents = base::read(seal::open(&path, &format!("{}/{tar}", partial.id), key)?, None, Some(clear.path()))?;
    // pg_receivewal continues from the last segment.
    for name in names(clear.path())?.iter().filter(|name| **name != contents.last_wal) {
        fs::remove_file(clear.path().join(name)).map_err(|error| unwritable(clear.path(), error))?;
    }
    let reader = migrate::connect(server).await.context("cannot connect to the database")?;
    let mut at = state::begin_snapshot(&client, &reader).await?;
    wal::receive_until_now(&programs, server, &client, clear.path()).await?;
    at.tables = state::hashes(&reader, &state::tables(&reader).await?).await?;
    drop(reader);

    let mut backup = Backup {
        id: partial.id.clone(),
        kind: Kind::Physical,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        postgres: cluster.version,
        major: cluster.major,
        database: cluster.database,
        system: cluster.system,
        schema_version: migrate::applied_version(&client).await.context("cannot read the schema's version")?,
        wal: None,
        state: at,
        sequences: Vec::new(),
        key: key.map(Key::mark),
        files: Vec::new(),
    };
    backup.note(&tar, written);
    let tail = partial.path().join("wal");
    DirBuilder::new().mode(0o700).create(&tail).map_err(|error| unwritable(&tail, error))?;
    let mut last = contents.last_wal.clone();
    for name in names(clear.path())?.iter().filter(|name| **name != contents.last_wal) {
        let file = format!("wal/{name}{suffix}");
        let path = partial.path().join(&file);
        let mut writer = seal::Writer::create(&path, &format!("{}/{file}", partial.id), key)
            .map_err(|error| unwritable(&path, error))?;
        let mut from = seal::open(&clear.path().join(name), name, None)?;
        std::io::copy(&mut from, &mut writer).map_err(|error| unwritable(&path, error))?;
        backup.note(&file, writer.finish().map_err(|error| unwritable(&path, error))?);
        if is_segment(name) {
            last = last.max(name[..24].to_owned());
        }
    }
    drop(clear);
    backup.wal = Some(Wal { first: contents.first_wal, last, segment_bytes: cluster.segment_bytes });
    partial.finish(&backup, key)?;
    Ok(backup)
}

/// Refuses a repository that has backups of another cluster: their WAL has the same names.
pub fn expect_same_cluster(repository: &dyn fmt::Display, backups: &[Backup], system: &str) -> anyhow::Result<()> {
    match backups.iter().rev().find(|backup| backup.kind == Kind::Physical && backup.system != system) {
        Some(other) => bail!(
            "{repository} has backups of another cluster ({}, this one is {system}); choose another folder or prefix",
            other.system
        ),
        None => Ok(()),
    }
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    Ok(disk::entries(directory)?.iter().map(|path| name_of(path)).collect())
}

/// Restores a cluster from a backup and the WAL after it ([`super::segments::reach`]), and returns it running, with the time of
/// the last replayed commit; none when nothing was committed since the backup was begun.
///
/// # Errors
/// When a file of the backup is damaged, the key is another one, or WAL does not reach that far.
pub async fn restore(
    folder: &Folder,
    backup: &Backup,
    key: Option<&Key>,
    target: &Target,
    until: Until,
) -> anyhow::Result<(Server, Option<Timestamp>)> {
    backup.expect_key(key)?;
    let directory = folder.directory(backup);
    backup.check(&directory)?;
    // WAL is copied to the target, and PostgreSQL copies each segment that it replays.
    let bytes = backup.files.iter().filter(|file| file.path.starts_with(TAR)).map(|file| file.bytes).sum::<u64>();
    disk::expect_room(&target.data(), bytes + wal::bytes(folder, backup)?)?;
    let suffix = if backup.key.is_some() { SUFFIX } else { "" };
    let tar = format!("{TAR}{suffix}");
    let base = seal::open(&directory.join(&tar), &format!("{}/{tar}", backup.id), key)?;
    base::read(base, Some(&target.data()), None)?;
    let timeline = wal::lay_out(folder, backup, key, &target.wal())?;
    let mut settings = vec![("recovery_target_timeline", timeline.to_string())];
    match until {
        Until::State => settings.extend([
            ("recovery_target_lsn", backup.state.lsn.clone()),
            ("recovery_target_inclusive", "off".to_owned()),
        ]),
        // PostgreSQL's times have microseconds.
        Until::Instant(at) => {
            settings.push(("recovery_target_time", at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()));
        }
        Until::End => {}
    }
    let recovered = target.recover(&settings)?;
    let client = migrate::connect(&ConnInfo::from_config(recovered.config())?).await?;
    let reached = client.query_one("select pg_last_xact_replay_timestamp()", &[]).await?.try_get(0)?;
    Ok((recovered, reached))
}
