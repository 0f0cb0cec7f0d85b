//! A standby that answers lists, and what is known of it: which cluster it is of, and how far it has replayed.
//!
//! Nothing is read there that has not been judged on the very session that reads: of several standbys behind one address each has
//! replayed to somewhere else. The bound on staleness is a position too: where the primary's log was that long ago. A look
//! from time to time keeps that, and keeps lists away from a standby that does not do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Row;

use super::error::StoreError;
use super::pool::Pool;
use super::position::{Need, Position};
use super::positions::{POSITION, Positions, position};
use super::session::Session;
use super::turns::Turns;
use crate::shutdown::Shutdown;

/// Name of the counter of readings where there is a replica, by what came of them.
pub const REPLICA_READS: &str = "db_replica_reads_total";
/// Name of the gauge of how far the replica is behind.
pub const REPLICA_LAG: &str = "db_replica_lag_seconds";
/// Name of the gauge of whether lists are read there.
pub const REPLICA_UP: &str = "db_replica_up";

/// The values of the label `result` of [`REPLICA_READS`].
const RESULTS: &[&str] = &["replica", "behind", "lagging", "away", "promoted", "foreign", "failed", "primary"];

/// A session is asked before it reads, and has so long to answer: a server that stands still must not hold up a list.
const LOOK_PATIENCE: Duration = Duration::from_millis(250);
/// So often the two servers are looked at, or four times as long as the lag that is allowed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Samples of the primary's log that are kept at most; more are thinned out.
const SAMPLES: usize = 4096;

/// Any session may ask all of this; of `pg_stat_wal_receiver` the role needs `pg_read_all_stats` to see the timeline. Without it that
/// of the last restartpoint counts, which is never too new.
const STANDBY: &str = "select pg_is_in_recovery(), greatest(c.timeline_id, r.received_tli)::int8, \
     (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8, s.system_identifier \
     from pg_control_checkpoint() c cross join pg_control_system() s left join pg_stat_wal_receiver r on true";

/// Which cluster a server is of.
pub const CLUSTER: &str = "select system_identifier from pg_control_system()";

/// How a replica is used.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaOptions {
    /// Most that its answers may be behind.
    pub max_lag: Duration,
    /// Longest wait for it to replay what a client has written.
    pub wait: Duration,
}

/// Why nothing is read on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It has not been looked at, or does not answer.
    Away,
    /// It is further behind than is allowed.
    Lagging,
    /// It has not replayed what is needed yet.
    Behind,
    /// It takes changes: it was promoted, or never was a standby.
    Promoted,
    /// It is of another cluster.
    Foreign,
}

impl Unfit {
    /// As metrics and readiness tell it.
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

/// What the last look found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaState {
    /// Why lists are not read there, if they are not.
    pub unfit: Option<Unfit>,
    /// How far it is behind, if that is known.
    pub lag: Option<Duration>,
}

/// The replica that lists are read on, and where the primary is.
#[derive(Clone)]
pub struct Followed {
    /// The replica.
    pub replica: Arc<Replica>,
    /// Looks at the primary.
    pub positions: Positions,
}

impl Followed {
    /// Follows a replica with these two pools, of lists and of whoever looks, beside the primary's pool for rows by key.
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
    /// Turns at them.
    pub turns: Turns,
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
    /// Where the primary's log was, oldest first: of those that are older than the lag that is allowed, the newest alone.
    samples: VecDeque<(Instant, Position)>,
}

/// What a standby says of itself.
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
            turns: Turns::at_sessions(pool.size()),
            pool,
            options,
            probe,
            known: Mutex::new(Known {
                state: ReplicaState { unfit: Some(Unfit::Away), lag: None },
                cluster: None,
                samples: VecDeque::new(),
            }),
            lag: metrics::gauge!(REPLICA_LAG),
            up: metrics::gauge!(REPLICA_UP),
        }
    }

    /// What the last look found.
    pub fn state(&self) -> ReplicaState {
        self.known().state
    }

    /// Judges what a session leads to by what it says now.
    ///
    /// # Errors
    /// Why nothing may be read on it.
    pub async fn judge(&self, session: &Session, need: Need) -> Result<(), Unfit> {
        let standby = ask(session).await.map_err(|_| Unfit::Away)?;
        if !standby.is_standby {
            session.give_up(); // another connection may lead to another server
        }
        self.known().judge(&standby, need)
    }

    /// How far a session has replayed: everything that was read on it before is older.
    pub async fn replayed(&self, session: &Session) -> Option<Position> {
        ask(session).await.ok()?.replayed
    }

    /// Nothing is read there until the next look has found it fit.
    pub fn rest(&self, unfit: Unfit) {
        self.turn_to(ReplicaState { unfit: Some(unfit), lag: self.state().lag });
    }

    /// Looks at both servers until the shutdown.
    async fn watch(self: Arc<Self>, primary: Pool, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(LOOK_EVERY.min(self.options.max_lag / 4));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shutdown.is_requested() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.requested() => return,
            }
            let begun = Instant::now();
            // While the primary is away, where it was counts: a list is better than none.
            if let Ok((cluster, position)) = sample(&primary).await {
                self.known().take_down(begun, cluster, position, self.options.max_lag);
            }
            let standby = match self.probe.session().await {
                Ok(session) => ask(&session).await,
                Err(error) => Err(error),
            };
            let state = match standby {
                Err(_) => ReplicaState { unfit: Some(Unfit::Away), lag: None },
                Ok(standby) => {
                    let known = self.known();
                    let unfit = known.judge(&standby, Need::Nothing).err();
                    ReplicaState { unfit, lag: standby.replayed.and_then(|replayed| known.lag(replayed)) }
                }
            };
            self.turn_to(state);
        }
    }

    fn turn_to(&self, state: ReplicaState) {
        let before = std::mem::replace(&mut self.known().state, state);
        self.up.set(if state.unfit.is_none() { 1.0 } else { 0.0 });
        self.lag.set(state.lag.map_or(f64::NAN, |lag| lag.as_secs_f64()));
        match state.unfit {
            unfit if unfit == before.unfit => {}
            None => tracing::info!("lists are read on the replica"),
            Some(unfit) => {
                tracing::warn!(state = unfit.name(), "lists are read on the primary: the replica does not do");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code that can panic runs under the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn take_down(&mut self, at: Instant, cluster: i64, position: Position, max_lag: Duration) {
        let is_another = self.cluster.replace(cluster).is_some_and(|before| before != cluster);
        // What a standby of the timeline before has replayed since the promotion is no part of this one.
        if is_another || self.samples.back().is_some_and(|(_, last)| last.timeline != position.timeline) {
            self.samples.clear();
        }
        self.samples.push_back((at, position));
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|(next, _)| at - *next >= max_lag) {
            self.samples.pop_front();
        }
        if self.samples.len() > SAMPLES {
            // The oldest stays: it is the bound.
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    /// Why a server that says this does not do.
    fn judge(&self, standby: &Standby, need: Need) -> Result<(), Unfit> {
        let Some(cluster) = self.cluster else { return Err(Unfit::Away) };
        if standby.cluster != cluster {
            return Err(Unfit::Foreign);
        }
        if !standby.is_standby {
            return Err(Unfit::Promoted);
        }
        let Some(replayed) = standby.replayed else { return Err(Unfit::Lagging) };
        if self.samples.front().is_none_or(|(_, bound)| !replayed.has(*bound)) {
            return Err(Unfit::Lagging);
        }
        match need {
            Need::At(position) if !replayed.has(position) => Err(Unfit::Behind),
            Need::Primary => Err(Unfit::Behind),
            Need::Nothing | Need::At(_) => Ok(()),
        }
    }

    /// How long ago the primary was where this position is, at most.
    fn lag(&self, replayed: Position) -> Option<Duration> {
        let newest = self.samples.back()?;
        if replayed.has(newest.1) {
            return Some(Duration::ZERO);
        }
        // It has what came before the first sample that it lacks.
        let lacks = self.samples.iter().find(|(_, sample)| !replayed.has(*sample))?;
        Some(lacks.0.elapsed())
    }
}

async fn ask(session: &Session) -> Result<Standby, StoreError> {
    let rows = session.look(STANDBY, LOOK_PATIENCE).await?;
    let row = rows.first().ok_or(StoreError::Missing)?;
    Ok(Standby { is_standby: row.try_get(0)?, replayed: replayed(row)?, cluster: row.try_get(3)? })
}

fn replayed(row: &Row) -> Result<Option<Position>, StoreError> {
    let (timeline, lsn): (Option<i64>, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
    Ok(timeline.zip(lsn).and_then(|(timeline, lsn)| position(timeline, lsn)))
}

async fn sample(primary: &Pool) -> Result<(i64, Position), StoreError> {
    let session = primary.session().await?;
    let cluster = session.look(CLUSTER, LOOK_PATIENCE).await?.first().ok_or(StoreError::Missing)?.try_get(0)?;
    let rows = session.look(POSITION, LOOK_PATIENCE).await?;
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
        let state = ReplicaState { unfit: None, lag: None };
        let mut known = Known { state, cluster: None, samples: VecDeque::new() };
        for (seconds, position) in samples {
            known.take_down(begun + Duration::from_secs(*seconds), 7, *position, LAG);
        }
        (known, begun)
    }

    fn standby(replayed: Position) -> Standby {
        Standby { is_standby: true, replayed: Some(replayed), cluster: 7 }
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_may_be_behind_by_what_is_allowed_and_not_more() {
        let (known, _) = known(&[(0, at(1, 100)), (5, at(1, 200)), (12, at(1, 300)), (16, at(1, 400))]);
        let judge = |replayed, need| known.judge(&standby(replayed), need);
        assert_eq!(judge(at(1, 199), Need::Nothing), Err(Unfit::Lagging), "at 6 the log was behind 200");
        assert_eq!(judge(at(1, 200), Need::Nothing), Ok(()));
        assert_eq!(judge(at(1, 250), Need::At(at(1, 251))), Err(Unfit::Behind));
        assert_eq!(judge(at(1, 250), Need::At(at(1, 250))), Ok(()));
        assert_eq!(judge(at(1, 999), Need::Primary), Err(Unfit::Behind));
        assert_eq!(judge(at(1, 999), Need::At(at(2, 10))), Err(Unfit::Behind), "of a timeline that it does not follow");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_promotion_a_standby_of_the_timeline_before_lags_however_far_its_log_goes() {
        let (known, _) = known(&[(0, at(1, 100)), (20, at(2, 150))]);
        assert_eq!(known.judge(&standby(at(1, 9000)), Need::Nothing), Err(Unfit::Lagging));
        assert_eq!(known.judge(&standby(at(2, 150)), Need::Nothing), Ok(()));
        assert_eq!(known.judge(&Standby { cluster: 8, ..standby(at(2, 150)) }, Need::Nothing), Err(Unfit::Foreign));
        assert_eq!(
            known.judge(&Standby { is_standby: false, ..standby(at(2, 150)) }, Need::Nothing),
            Err(Unfit::Promoted)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_lag_is_the_age_of_the_first_sample_that_it_lacks() {
        let (known, begun) = known(&[(0, at(1, 100)), (2, at(1, 200)), (4, at(1, 300))]);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(Instant::now() - begun, Duration::from_secs(5));
        assert_eq!(known.lag(at(1, 300)), Some(Duration::ZERO));
        assert_eq!(known.lag(at(1, 200)), Some(Duration::from_secs(1)));
        assert_eq!(known.lag(at(1, 199)), Some(Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_samples_is_bounded_and_keeps_the_bound() {
        let (mut known, begun) = known(&[]);
        for second in 0..20_000_u64 {
            known.take_down(begun + Duration::from_secs(second), 7, at(1, second), Duration::from_secs(1_000_000));
            assert!(known.samples.len() <= SAMPLES + 1);
        }
        assert_eq!(known.samples.front().map(|(_, position)| *position), Some(at(1, 0)));
    }
}
