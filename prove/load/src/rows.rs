//! The rows that all connections share, and when the load ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::resource::{RESOURCES, Resource};
use crate::row::Row;

/// How long the final reads may take after the end of the load.
const FINAL_READS: Duration = Duration::from_secs(90);

pub struct Limits {
    /// Of each resource, changed at the same time.
    pub rows: usize,
    /// Of one row: the cost of a search grows with the length of a history.
    pub operations: usize,
    /// Each row whose number is a multiple of this is restored after deletions, and to earlier versions.
    pub restorable_every: u64,
}

pub struct Rows {
    pub limits: Limits,
    /// Times count from here.
    pub start: Instant,
    pools: [Mutex<Pool>; RESOURCES.len()],
    numbers: AtomicU64,
    is_stopping: AtomicBool,
    stopped: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Pool {
    rows: Vec<Arc<Row>>,
    creating: usize,
}

/// What a connection does next with a resource.
pub enum Turn {
    Create,
    Act(Arc<Row>),
    /// All rows are being created by other connections.
    Wait,
}

impl Rows {
    pub fn new(limits: Limits) -> Self {
        Rows {
            limits,
            start: Instant::now(),
            pools: Default::default(),
            numbers: AtomicU64::new(1),
            is_stopping: AtomicBool::new(false),
            stopped: Mutex::new(None),
        }
    }

    /// A number that no other change has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub fn turn(&self, resource: Resource, random: &mut Random) -> Turn {
        let mut pool = self.pool(resource);
        if pool.rows.len() + pool.creating < self.limits.rows {
            pool.creating += 1;
            return Turn::Create;
        }
        if pool.rows.is_empty() {
            return Turn::Wait;
        }
        Turn::Act(pool.rows[random.below(pool.rows.len())].clone())
    }

    /// Ends the creation that a turn demanded.
    pub fn created(&self, resource: Resource, row: Option<Row>) {
        let mut pool = self.pool(resource);
        pool.creating -= 1;
        pool.rows.extend(row.map(Arc::new));
    }

    pub fn remove(&self, row: &Arc<Row>) {
        self.pool(row.resource).rows.retain(|one| !Arc::ptr_eq(one, row));
    }

    /// A row that is still in use, at the end of the load.
    pub fn take(&self) -> Option<Arc<Row>> {
        RESOURCES.iter().find_map(|resource| self.pool(*resource).rows.pop())
    }

    pub fn stop(&self) {
        *self.stopped.lock().expect("no thread panics while it holds the lock") = Some(Instant::now());
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Whether even the final reads must end.
    pub fn is_over(&self) -> bool {
        let stopped = *self.stopped.lock().expect("no thread panics while it holds the lock");
        stopped.is_some_and(|stopped| stopped.elapsed() > FINAL_READS)
    }

    fn pool(&self, resource: Resource) -> MutexGuard<'_, Pool> {
        self.pools[resource as usize].lock().expect("no thread panics while it holds the lock")
    }
}
