//! Receives WAL into a bucket continuously, so that a backup there can be restored to any later instant.
//!
//! `pg_receivewal` writes into a spool directory, from which every complete segment is stored in the bucket, and every ten
//! seconds the new part of the incomplete one. The replication slot keeps on the server what the bucket does not have: it is
//! advanced only past segments that were stored and read back. Invariant: every run, and every restart of `pg_receivewal`,
//! begins at the slot's segment, so that nothing is skipped, whatever was lost on this machine.

use std::pin::pin;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::bucket::Bucket;
use super::follow::{self, MAKE_SLOT, PAUSE, SLOT};
use super::physical::{Cluster, expect_same_cluster};
use super::record::Backup;
use super::seal::Key;
use super::segments::{self, Received};
use super::spool::{self, Spool};
use super::wal;
use crate::db::conninfo::ConnInfo;
use crate::db::embedded::{Options, Programs};
use crate::db::migrate;

/// Admits one follower: a second one would advance the same slot. The server holds the lock of a lost session until it detects
/// that.
const LOCK: &str = "set lock_timeout = '10s'; select pg_advisory_lock(hashtext('pycrudapi_backup'))";
const POSITION: &str = "select (restart_lsn - '0/0')::int8, coalesce(wal_status = 'lost', false), active
    from pg_replication_slots where slot_name = $1";
const ADVANCE: &str = "select pg_replication_slot_advance(slot_name, '0/0'::pg_lsn + $2::int8::numeric)
    from pg_replication_slots where slot_name = $1 and restart_lsn < '0/0'::pg_lsn + $2::int8::numeric";
const INSERTED: &str = "select (pg_current_wal_insert_lsn() - '0/0')::int8";
const FLUSHED: &str = "select (flush_lsn - '0/0')::int8 from pg_stat_replication where application_name = $1";

/// The remedy when the server has removed WAL that the bucket does not have.
const REMEDY: &str =
    "follow again, which begins with a new backup; earlier backups can then be restored to their own instants only";

/// Interval at which the incomplete segment is stored: with a lost server, about this much is lost.
const ROUND: Duration = Duration::from_secs(10);
/// Longest pause before the next attempt to write to the bucket.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Number of complete segments in the spool at which receiving is suspended; the server keeps the rest.
const WAITING_MAX: usize = 8;

/// Receives WAL into a bucket.
pub struct Archiver<'a> {
    server: &'a ConnInfo,
    bucket: &'a Bucket,
    programs: Programs,
    cluster: Cluster,
    client: Client,
    spool: Spool<'a>,
    receiver: Receiver,
    /// The number of the segment at which this run began.
    first: u64,
    /// Whether the WAL that is received continues no backup in the bucket.
    pub needs_backup: bool,
    /// The last segment that the slot was advanced past.
    advanced: Option<String>,
    /// An empty transaction that is not stored yet: its time, and the end of WAL after it.
    pending: Option<(Timestamp, u64)>,
    next_round: Instant,
    /// While the bucket cannot be written: the time of the next attempt, and the pause before it.
    away: Option<(Instant, Duration)>,
    is_server_away: bool,
}

/// `pg_receivewal`, which ends with the value.
struct Receiver {
    child: Option<Child>,
    /// Its name in `pg_stat_replication`: unique, because the session of an earlier one may still be listed.
    name: String,
}

impl Receiver {
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

impl<'a> Archiver<'a> {
    /// Creates the slot unless it exists, so that the server keeps WAL from now on. Nothing is received before [`Self::run`].
    ///
    /// # Errors
    /// When another process follows this database, the server does not allow it, or the bucket cannot be read.
    pub async fn start(
        server: &'a ConnInfo,
        options: &Options,
        bucket: &'a Bucket,
        key: Option<&'a Key>,
    ) -> anyhow::Result<Self> {
        let client = session(server).await?;
        let cluster = Cluster::read(&client).await?;
        let backups = bucket.list().await?;
        expect_same_cluster(&bucket.name(), &backups, &cluster.system)?;
        let programs = Programs::find(options, cluster.major)?;
        client.query_one(MAKE_SLOT, &[&SLOT]).await.context("cannot make a replication slot")?;
        let names = bucket.received_names(&cluster.timeline).await?;
        let segment = position(&client, &cluster.timeline, cluster.segment_bytes).await?;
        let leads_here = |backup: &Backup| {
            backup.key == key.map(Key::mark)
                && backup.wal.as_ref().is_some_and(|wal| wal.first.starts_with(&cluster.timeline))
                && segments::leads_to(backup, names.iter().map(String::as_str), &segment)
        };
        Ok(Self {
            server,
            bucket,
            programs,
            spool: Spool::new(bucket, key, &cluster.timeline, &names)?,
            first: segments::segment_number(&segment, cluster.segment_bytes),
            needs_backup: !backups.iter().any(leads_here),
            cluster,
            client,
            receiver: Receiver { child: None, name: String::new() },
            advanced: None,
            pending: None,
            next_round: Instant::now(),
            away: None,
            is_server_away: false,
        })
    }

    /// Receives until it fails; `each` is called with every instant up to which everything is in the bucket.
    ///
    /// # Errors
    /// When the server has removed WAL, or the disk of this machine cannot be written.
    pub async fn run(&mut self, mut each: impl FnMut(Timestamp)) -> anyhow::Result<()> {
        loop {
            match self.step().await {
                Ok(at) => {
                    self.is_server_away = false;
                    at.into_iter().for_each(&mut each);
                }
                Err(error) if error.downcast_ref::<tokio_postgres::Error>().is_some() || self.client.is_closed() => {
                    if !std::mem::replace(&mut self.is_server_away, true) {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "the server is unreachable; following resumes when it is back"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
            // Polling: pg_receivewal reports its progress only to the server, and nothing announces that a server is back.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Stores what was committed before this call, if the bucket can be written.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        (self.pending, self.next_round) = (None, Instant::now());
        while self.away.is_none() && self.step().await?.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await; // polling, as in `run`
        }
        Ok(())
    }

    /// Stores what was received; returns the instant up to which everything is in the bucket when it has advanced.
    async fn step(&mut self) -> anyhow::Result<Option<Timestamp>> {
        self.keep_receiving().await?;
        if self.next_round <= Instant::now() {
            let at: Timestamp = self.client.query_one(wal::HEARTBEAT, &[]).await?.try_get(1)?;
            let end: i64 = self.client.query_one(INSERTED, &[]).await?.try_get(0)?;
            // A pending one stays, because a receiver that lags would never reach the next.
            self.pending.get_or_insert((at, end.unsigned_abs()));
            self.next_round = Instant::now() + ROUND;
        }
        // Read before the files are listed, so that all segments before this position are complete in the list.
        let flushed = self.client.query_opt(FLUSHED, &[&self.receiver.name]).await?;
        let flushed = flushed.and_then(|row| row.try_get::<_, Option<i64>>(0).ok().flatten()).unwrap_or_default();
        if self.away.is_some_and(|(again, _)| Instant::now() < again) {
            return Ok(None);
        }
        let sent = self.send(flushed.unsigned_abs()).await;
        self.advance().await?;
        match sent {
            Ok(at) => {
                if self.away.take().is_some() {
                    tracing::info!(bucket = self.bucket.name(), "WAL reaches the bucket again");
                }
                Ok(at)
            }
            Err(error) => {
                let pause = self.away.map_or(PAUSE, |(_, pause)| PAUSE_MAX.min(pause * 2));
                if self.away.is_none() {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "WAL does not reach the bucket; the server keeps it until it does");
                }
                self.away = Some((Instant::now() + pause, pause));
                Ok(None)
            }
        }
    }

    /// Stores files, and suspends receiving when too many wait meanwhile.
    async fn send(&mut self, flushed: u64) -> anyhow::Result<Option<Timestamp>> {
        let bytes = self.cluster.segment_bytes;
        let segment = segments::segment_name(&self.cluster.timeline, flushed / bytes, bytes);
        let due = self.pending.filter(|(_, end)| *end <= flushed).map(|(at, _)| at);
        let (system, path) = (self.cluster.system.clone(), self.spool.path().to_path_buf());
        let outgoing = &mut self.spool;
        let outcome = {
            let mut sending = pin!(async {
                outgoing.send_whole().await?;
                let Some(at) = due else { return anyhow::Ok(None) };
                if !outgoing.send_part(&segment, flushed % bytes).await? {
                    return Ok(None);
                }
                outgoing.send_received(&Received { at: at.to_string(), system }).await?;
                Ok(Some(at))
            });
            loop {
                tokio::select! {
                    outcome = &mut sending => break outcome,
                    // Polling: nothing announces a complete segment.
                    () = tokio::time::sleep(PAUSE) => {
                        if spool::waiting(&path)? >= WAITING_MAX {
                            self.receiver.end();
                        }
                    }
                }
            }
        };
        if matches!(outcome, Ok(Some(_))) {
            self.pending = None;
        }
        outcome
    }

    /// Advances the slot past what the bucket has.
    async fn advance(&mut self) -> anyhow::Result<()> {
        if self.advanced == self.spool.last {
            return Ok(());
        }
        if let Some(last) = &self.spool.last {
            let end = (segments::segment_number(last, self.cluster.segment_bytes) + 1) * self.cluster.segment_bytes;
            self.client.query_opt(ADVANCE, &[&SLOT, &end.cast_signed()]).await?;
        }
        self.advanced.clone_from(&self.spool.last);
        Ok(())
    }

    /// Restarts the receiver when it has ended, and reconnects when the session was lost.
    async fn keep_receiving(&mut self) -> anyhow::Result<()> {
        if self.client.is_closed() {
            self.client = session(self.server).await?;
        }
        let waiting = spool::waiting(self.spool.path())?;
        if let Some(child) = &mut self.receiver.child {
            if child.try_wait().context("cannot wait for pg_receivewal")?.is_none() {
                if waiting >= WAITING_MAX {
                    self.receiver.end();
                }
                return Ok(());
            }
            let said = std::io::read_to_string(child.stderr.take().expect("piped")).unwrap_or_default();
            self.receiver.child = None;
            follow::expect_restartable(&said, false, self.spool.path(), REMEDY)?;
        }
        // The files that wait are stored first, and the slot is advanced past them.
        if waiting == 0 {
            // If the server has changed to a new timeline, it sends the end of this one, and then the new one.
            let timeline = self.spool.last.as_ref().map_or(self.cluster.timeline.as_str(), |last| &last[..8]);
            let bytes = self.cluster.segment_bytes;
            let segment = position(&self.client, timeline, bytes).await?;
            let next = self.spool.last.as_ref().map_or(self.first, |last| segments::segment_number(last, bytes) + 1);
            if segments::segment_number(&segment, bytes) > next {
                return Err(follow::gone("the slot was advanced by another process", REMEDY));
            }
            self.spool.begin_at(&segment)?;
            self.receiver.name = format!("pycrudapi follow {}", Uuid::new_v4().simple());
            let child =
                wal::receiver(&self.programs, self.server, self.spool.path(), &self.receiver.name, &["--no-loop"])?;
            self.receiver.child = Some(child);
        }
        Ok(())
    }
}

/// Connects, and takes the lock.
async fn session(server: &ConnInfo) -> anyhow::Result<Client> {
    let client = migrate::connect(server).await.context("cannot connect to the database; check DATABASE_URL")?;
    match client.batch_execute(LOCK).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            bail!("another process follows this database into a bucket; stop it first")
        }
        locked => locked.context("the connection to postgres was lost")?,
    }
    Ok(client)
}

/// The first segment that the slot keeps.
async fn position(client: &Client, timeline: &str, segment_bytes: u64) -> anyhow::Result<String> {
    let row = client.query_opt(POSITION, &[&SLOT]).await?;
    let Some(row) = row else { bail!("the replication slot {SLOT} is gone from the server: {REMEDY}") };
    let (at, is_lost, is_active): (Option<i64>, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    match at {
        Some(_) if is_active => {
            bail!(
                "another process receives WAL by the slot {SLOT}, as `backup --follow` into a folder does; stop it first"
            )
        }
        Some(at) if !is_lost => Ok(segments::segment_name(timeline, at.unsigned_abs() / segment_bytes, segment_bytes)),
        _ => Err(follow::gone("max_slot_wal_keep_size was exceeded", REMEDY)),
    }
}
