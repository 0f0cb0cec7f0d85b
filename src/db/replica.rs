//! A standby that answers lists, and its state: which cluster it belongs to and how far it has replayed.
//!
//! Each read checks the standby on the same session that it uses: of several standbys behind one address, each has replayed to
//! a different position. The limit of staleness is also a position: that of the primary's WAL at that time. A periodic check
//! records it, and keeps lists away from a standby that is not usable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Row;

use super::error::StoreError;
use super::fair_queue::FairQueue;
use super::pool::Pool;
use super::position::{Consistency, Position};
use super::positions::{POSITION, Positions, position};
use super::session::Session;
use crate::shutdown::Shutdown;

/// Name of the counter of list reads if there is a replica, by outcome.
pub const REPLICA_READS: &str = "db_replica_reads_total";
/// Name of the gauge of the replica's lag.
pub const REPLICA_LAG: &str = "db_replica_lag_seconds";
/// Name of the gauge that is 1 while lists are read on the replica.
pub const REPLICA_UP: &str = "db_replica_up";

/// The values of the label `result` of [`REPLICA_READS`].
const RESULTS: &[&str] = &["replica", "behind", "lagging", "away", "promoted", "foreign", "failed", "primary"];

/// Time limit of the check before a read: a server that does not respond must not delay a list.
const CHECK_TIMEOUT: Duration = Duration::from_millis(250);
/// Maximum interval of the periodic check of both servers; it is shorter if a quarter of the allowed lag is.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of samples of the primary's WAL position; beyond it, every second one is dropped.
const MAX_SAMPLES: usize = 4096;

/// Any role may run this. To see the timeline in `pg_stat_wal_receiver`, the role needs `pg_read_all_stats`; without it, the
/// timeline of the last restartpoint is used, which is never too new.
const STANDBY: &str = "select pg_is_in_recovery(), greatest(c.timeline_id, r.received_tli)::int8, \
     (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8, s.system_identifier \
     from pg_control_checkpoint() c cross join pg_control_system() s left join pg_stat_wal_receiver r on true";

/// Query for the identifier of a server's cluster.
pub const CLUSTER: &str = "select system_identifier from pg_control_system()";

/// How a replica is used.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaOptions {
    /// Maximum lag of its answers.
    pub max_lag: Duration,
    /// Longest wait until it has replayed a client's own writes.
    pub wait: Duration,
}

/// Why a replica is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It has not been checked yet, or does not respond.
    Away,
    /// It lags more than allowed.
    Lagging,
    /// It has not yet replayed what the read requires.
    Behind,
    /// It accepts writes: it was promoted, or never was a standby.
    Promoted,
    /// It belongs to another cluster.
    Foreign,
}

impl Unusable {
    /// The name in metrics and readiness.
    pub fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Lagging => "lagging",
            Self::Behind => "behind",
            Self::Promoted => "promoted",
            Self::Foreign => "foreign",
        }
    }
}

/// Result of the last periodic check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaState {
    /// Why lists are not read there, if so.
    pub unusable: Option<Unusable>,
    /// Its lag, if known.
    pub lag: Option<Duration>,
}

/// The replica for list reads, and the position of its primary.
#[derive(Clone)]
pub struct ReadReplica {
    /// The replica.
    pub replica: Arc<Replica>,
    /// Reads the primary's position.
    pub positions: Positions,
}

impl ReadReplica {
    /// Follows a replica through these two pools, for lists and for the periodic check, and the primary through its pool for
    /// rows by key.
    pub fn start(pools: [Pool; 2], options: ReplicaOptions, primary: &Pool, shutdown: Shutdown) -> Self {
        let replica = Arc::new(Replica::new(pools, options));
        tokio::spawn(replica.clone().watch(primary.clone(), shutdown));
        Self { replica, positions: Positions::new(primary.clone()) }
    }
}

/// A standby, or several behind one address.
pub struct Replica {
    /// Sessions for lists.
    pub pool: Pool,
    /// Fair queue for these sessions.
    pub queue: FairQueue,
    /// How it is used.
    pub options: ReplicaOptions,
    probe: Pool,
    known: Mutex<Known>,
    lag: Gauge,
    up: Gauge,
}

struct Known {
    state: ReplicaState,
    cluster: Option<i64>,
    /// Positions of the primary's WAL, oldest first: of those older than the allowed lag, only the newest.
    samples: VecDeque<(Instant, Position)>,
    /// Since when the standby lacks something, from samples that may have been dropped by now.
    lacks_since: Option<Instant>,
}

/// State of a standby, as it reports it.
struct Standby {
    is_standby: bool,
    replayed: Option<Position>,
    cluster: i64,
}

impl Replica {
    fn new([pool, probe]: [Pool; 2], options: ReplicaOptions) -> Self {
        for result in RESULTS {
            metrics::counter!(REPLICA_READS, "result" => *result).increment(0);
        }
        Self {
            queue: FairQueue::for_sessions(pool.size()),
            pool,
            options,
            probe,
            known: Mutex::new(Known {
                state: ReplicaState { unusable: Some(Unusable::Away), lag: None },
                cluster: None,
                samples: VecDeque::new(),
                lacks_since: None,
            }),
            lag: metrics::gauge!(REPLICA_LAG),
            up: metrics::gauge!(REPLICA_UP),
        }
    }

    /// Result of the last periodic check.
    pub fn state(&self) -> ReplicaState {
        self.known().state
    }

    /// Checks whether a session's server can serve a read.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check(&self, session: &Session, consistency: Consistency) -> Result<(), Unusable> {
        let standby = query_standby(session).await.map_err(|_| Unusable::Away)?;
        if !standby.is_standby {
            session.mark_broken(); // another connection may lead to another server
        }
        self.known().check(&standby, consistency)
    }

    /// Replay position of a session's server: it includes everything read on the session before.
    pub async fn replayed(&self, session: &Session) -> Option<Position> {
        query_standby(session).await.ok()?.replayed
    }

    /// Stops using the replica until the next check finds it usable.
    pub fn suspend(&self, unusable: Unusable) {
        self.set_state(ReplicaState { unusable: Some(unusable), lag: self.state().lag });
    }

    /// Checks both servers periodically until shutdown.
    async fn watch(self: Arc<Self>, primary: Pool, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(CHECK_INTERVAL.min(self.options.max_lag / 4));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shutdown.is_requested() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.requested() => return,
            }
            let begun = Instant::now();
            // While the primary is unreachable, its last known position applies: a stale list is better than none.
            if let Ok((cluster, position)) = sample(&primary).await {
                self.known().record(begun, cluster, position, self.options.max_lag);
            }
            let standby = match self.probe.session().await {
                Ok(session) => query_standby(&session).await,
                Err(error) => Err(error),
            };
            let state = match standby {
                Err(_) => ReplicaState { unusable: Some(Unusable::Away), lag: None },
                Ok(standby) => {
                    let mut known = self.known();
                    let unusable = known.check(&standby, Consistency::Eventual).err();
                    ReplicaState { unusable, lag: standby.replayed.and_then(|replayed| known.lag(replayed)) }
                }
            };
            self.set_state(state);
        }
    }

    fn set_state(&self, state: ReplicaState) {
        let before = std::mem::replace(&mut self.known().state, state);
        self.up.set(if state.unusable.is_none() { 1.0 } else { 0.0 });
        self.lag.set(state.lag.map_or(f64::NAN, |lag| lag.as_secs_f64()));
        match state.unusable {
            unusable if unusable == before.unusable => {}
            None => tracing::info!("lists are read on the replica"),
            Some(unusable) => {
                tracing::warn!(state = unusable.name(), "lists are read on the primary: the replica is not usable");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code that can panic runs under the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn record(&mut self, at: Instant, cluster: i64, position: Position, max_lag: Duration) {
        let is_another = self.cluster.replace(cluster).is_some_and(|before| before != cluster);
        // What a standby on the previous timeline has replayed since the promotion is not part of the new timeline.
        if is_another || self.samples.back().is_some_and(|(_, last)| last.timeline != position.timeline) {
            self.samples.clear();
            self.lacks_since = None;
        }
        self.samples.push_back((at, position));
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(next, _)| at - *next >= max_lag) {
            self.samples.pop_front();
        }
        if self.samples.len() > MAX_SAMPLES {
            // The oldest is kept, because it defines the limit.
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Why a server in this state cannot serve a read.
    fn check(&self, standby: &Standby, consistency: Consistency) -> Result<(), Unusable> {
        let Some(cluster) = self.cluster else { return Err(Unusable::Away) };
        if standby.cluster != cluster {
            return Err(Unusable::Foreign);
        }
        if !standby.is_standby {
            return Err(Unusable::Promoted);
        }
        let Some(replayed) = standby.replayed else { return Err(Unusable::Lagging) };
        if self.samples.front().is_none_or(|(_, bound)| !replayed.has(*bound)) {
            return Err(Unusable::Lagging);
        }
        match consistency {
            Consistency::AtLeast(position) if !replayed.has(position) => Err(Unusable::Behind),
            Consistency::Primary => Err(Unusable::Behind),
            Consistency::Eventual | Consistency::AtLeast(_) => Ok(()),
        }
    }

    /// Upper bound of the time since the primary was at this position.
    fn lag(&mut self, replayed: Position) -> Option<Duration> {
        // It has everything before the first sample that it lacks.
        let (oldest, _) = *self.samples.front()?;
        let lacks = self.samples.iter().find(|(_, sample)| !replayed.has(*sample)).map(|(at, _)| *at);
        // If it lacks the oldest sample, it may have lacked those that were dropped.
        self.lacks_since = if lacks == Some(oldest) { self.lacks_since.or(lacks) } else { lacks };
        Some(self.lacks_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

async fn query_standby(session: &Session) -> Result<Standby, StoreError> {
    let rows = session.query_within(STANDBY, CHECK_TIMEOUT).await?;
    let row = rows.first().ok_or(StoreError::Missing)?;
    Ok(Standby { is_standby: row.try_get(0)?, replayed: replayed(row)?, cluster: row.try_get(3)? })
}

fn replayed(row: &Row) -> Result<Option<Position>, StoreError> {
    let (timeline, lsn): (Option<i64>, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
    Ok(timeline.zip(lsn).and_then(|(timeline, lsn)| position(timeline, lsn)))
}

async fn sample(primary: &Pool) -> Result<(i64, Position), StoreError> {
    let session = primary.session().await?;
    let cluster = session.query_within(CLUSTER, CHECK_TIMEOUT).await?.first().ok_or(StoreError::Missing)?.try_get(0)?;
    let rows = session.query_within(POSITION, CHECK_TIMEOUT).await?;
    let row = rows.first().ok_or(StoreError::Missing)?;
    let position = position(row.try_get(0)?, row.try_get(1)?).ok_or(StoreError::Missing)?;
    Ok((cluster, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(10);

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline, lsn }
    }

    fn known(samples: &[(u64, Position)]) -> (Known, Instant) {
        let begun = Instant::now();
        let state = ReplicaState { unusable: None, lag: None };
        let mut known = Known { state, cluster: None, samples: VecDeque::new(), lacks_since: None };
        for (seconds, position) in samples {
            known.record(begun + Duration::from_secs(*seconds), 7, *position, LAG);
        }
        (known, begun)
    }

    fn standby(replayed: Position) -> Standby {
        Standby { is_standby: true, replayed: Some(replayed), cluster: 7 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_may_lag_by_the_allowed_time_and_no_more() {
        let (known, _) = known(&[(0, at(1, 100)), (5, at(1, 200)), (12, at(1, 300)), (16, at(1, 400))]);
        let check = |replayed, consistency| known.check(&standby(replayed), consistency);
        assert_eq!(check(at(1, 199), Consistency::Eventual), Err(Unusable::Lagging), "at 6 s the WAL was past 200");
        assert_eq!(check(at(1, 200), Consistency::Eventual), Ok(()));
        assert_eq!(check(at(1, 250), Consistency::AtLeast(at(1, 251))), Err(Unusable::Behind));
        assert_eq!(check(at(1, 250), Consistency::AtLeast(at(1, 250))), Ok(()));
        assert_eq!(check(at(1, 999), Consistency::Primary), Err(Unusable::Behind));
        assert_eq!(
            check(at(1, 999), Consistency::AtLeast(at(2, 10))),
            Err(Unusable::Behind),
            "of a timeline that it does not follow"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_promotion_a_standby_of_the_previous_timeline_lags_whatever_its_position() {
        let (known, _) = known(&[(0, at(1, 100)), (20, at(2, 150))]);
        assert_eq!(known.check(&standby(at(1, 9000)), Consistency::Eventual), Err(Unusable::Lagging));
        assert_eq!(known.check(&standby(at(2, 150)), Consistency::Eventual), Ok(()));
        assert_eq!(
            known.check(&Standby { cluster: 8, ..standby(at(2, 150)) }, Consistency::Eventual),
            Err(Unusable::Foreign)
        );
        assert_eq!(
            known.check(&Standby { is_standby: false, ..standby(at(2, 150)) }, Consistency::Eventual),
            Err(Unusable::Promoted)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_the_first_sample_that_it_lacks() {
        let (mut known, begun) = known(&[(0, at(1, 100)), (2, at(1, 200)), (4, at(1, 300))]);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(Instant::now() - begun, Duration::from_secs(5));
        assert_eq!(known.lag(at(1, 300)), Some(Duration::ZERO));
        assert_eq!(known.lag(at(1, 200)), Some(Duration::from_secs(1)));
        assert_eq!(known.lag(at(1, 199)), Some(Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_of_a_standby_that_has_stopped_grows_beyond_the_allowed_time() {
        let (mut known, begun) = known(&[(0, at(1, 100))]);
        for second in 1..=60 {
            tokio::time::advance(Duration::from_secs(1)).await;
            known.record(begun + Duration::from_secs(second), 7, at(1, 100 + second), LAG);
            assert_eq!(known.lag(at(1, 100)), Some(Duration::from_secs(second - 1)));
        }
        assert_eq!(known.lag(at(1, 160)), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_samples_is_bounded_and_the_oldest_is_kept() {
        let (mut known, begun) = known(&[]);
        for second in 0..20_000_u64 {
            known.record(begun + Duration::from_secs(second), 7, at(1, second), Duration::from_secs(1_000_000));
            assert!(known.samples.len() <= MAX_SAMPLES + 1);
        }
        assert_eq!(known.samples.front().map(|(_, position)| *position), Some(at(1, 0)));
    }
}
