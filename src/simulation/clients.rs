//! Clients of the database that arrive, wait and disconnect while PostgreSQL has faults, and the guarantees they have.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row};

use super::postgres::{Mode, Order, Postgres, READ, Run, WRITE};
use super::random::Random;
use crate::db::batch::{BatchLimits, BatchName, Batcher};
use crate::db::conninfo::ConnInfo;
use crate::db::error::StoreError;
use crate::db::operation::DbOperation;
use crate::db::pool::{Pool, PoolKind, PoolOptions};
use crate::db::reads::Reads;
use crate::db::single_flight::SingleFlight;

/// No operation with a guaranteed end takes this long: a queue, a permit, a statement and its deadline in sequence.
const HANGS: Duration = Duration::from_secs(120);
/// Within this time a statement whose clients have disconnected has ended: a batch checks every 100 ms, the cancel request has
/// two seconds, and then PostgreSQL checks the connection (500 ms).
const CANCELLED_WITHIN: Duration = Duration::from_millis(3000);
/// After this time everything is over: the end of what was frozen, and all that had to wait for it.
const QUIET_AFTER: Duration = Duration::from_secs(60);

/// The operation of every statement in the metrics.
pub static OPERATION: DbOperation = DbOperation::new("request", "simulation");

/// An item, and how long its statement takes in milliseconds.
type Item = (i64, u64);

/// The service's components, with one PostgreSQL.
#[derive(Clone)]
struct Service {
    keys: Pool,
    lists: Reads,
    reading: Batcher<Item, i64>,
    writing: Batcher<Item, i64>,
    coalescing: SingleFlight<i64, (), (i64, Instant)>,
}

/// Kind of a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    BatchedRead,
    BatchedWrite,
    Coalesced,
    List,
}

/// Outcome of a request.
struct Outcome {
    kind: Kind,
    key: i64,
    /// `None` for a client that disconnected at `at`.
    answer: Option<Result<i64, StoreError>>,
    at: Instant,
}

impl Service {
    fn new(random: &Random) -> Self {
        let mut config = Config::new();
        config.host_path("/simulated").user("simulated");
        let conninfo = ConnInfo::from_config(config).expect("no TLS is required");
        let checkout = random.millis(50, 2000);
        let statement = random.millis(200, 3000);
        let pool = |kind| {
            let size = u32::try_from(random.between(1, 5)).expect("small");
            Pool::new(&conninfo, &PoolOptions { kind, size, checkout_timeout: checkout, statement_timeout: statement })
        };
        let keys = pool(PoolKind::Keys);
        let lists = Reads::new(pool(PoolKind::Lists), keys.clone(), checkout, None);
        let batcher = |sql: &'static str, changes| {
            let limits = BatchLimits {
                size: random.size(1, 8),
                eager: random.size(1, 4),
                worth: random.size(1, 4),
                in_flight: random.size(1, 4),
                queue: random.size(1, 40),
                wait: random.millis(20, 2000),
                changes,
            };
            let keys = keys.clone();
            let work = move |items: Vec<Item>| -> BoxFuture<'static, Vec<Result<i64, StoreError>>> {
                let keys = keys.clone();
                Box::pin(async move {
                    let numbers: Vec<i64> = items.iter().map(|(key, _)| *key).collect();
                    let time = items.iter().map(|(_, time)| *time).max().unwrap_or_default();
                    match statement_of(&keys, sql, &numbers, time).await {
                        Ok(answered) => answered.into_iter().map(Ok).collect(),
                        Err(error) => numbers.iter().map(|_| Err(error.clone())).collect(),
                    }
                })
            };
            Batcher::new(BatchName { resource: "simulated", batch: sql }, limits, Box::new(work))
        };
        Self {
            reading: batcher(READ, false),
            writing: batcher(WRITE, true),
            coalescing: SingleFlight::new("simulated"),
            keys,
            lists,
        }
    }

    /// Executes a client's request.
    async fn request(&self, kind: Kind, (key, time): Item, client: IpAddr) -> Result<i64, StoreError> {
        let only = |keys: Vec<i64>| {
            assert_eq!(keys, [key], "an answer belongs to another request");
            key
        };
        match kind {
            Kind::Read => statement_of(&self.keys, READ, &[key], time).await.map(only),
            Kind::Write => statement_of(&self.keys, WRITE, &[key], time).await.map(only),
            Kind::BatchedRead => self.reading.submit((key, time)).await,
            Kind::BatchedWrite => self.writing.submit((key, time)).await,
            Kind::List => {
                let time = i64::try_from(time).expect("small");
                let rows = self.lists.on_primary(client).read(&OPERATION, READ, &[&vec![key], &time]).await?;
                Ok(only(keys_of(&rows)))
            }
            Kind::Coalesced => {
                let called = Instant::now();
                let (pool, what) = (self.keys.clone(), key % 3);
                let read = move |()| {
                    let pool = pool.clone();
                    async move {
                        let begun = Instant::now();
                        Ok((statement_of(&pool, READ, &[what], time).await?[0], begun))
                    }
                };
                let (answer, begun) = self.coalescing.get(what, (), read).await?;
                assert_eq!(answer, what, "an answer belongs to another key");
                assert!(begun >= called, "a read began before the call");
                Ok(key)
            }
        }
    }
}

async fn statement_of(pool: &Pool, sql: &'static str, keys: &[i64], time: u64) -> Result<Vec<i64>, StoreError> {
    let (keys, time) = (keys.to_vec(), i64::try_from(time).expect("small"));
    let params: [&(dyn ToSql + Sync); 2] = [&keys, &time];
    let rows = if sql == WRITE {
        pool.write(&OPERATION, sql, &params).await?
    } else {
        pool.read(&OPERATION, sql, &params).await?
    };
    Ok(keys_of(&rows))
}

fn keys_of(rows: &[Row]) -> Vec<i64> {
    assert_eq!(rows.len(), 1, "one row");
    assert_eq!(*rows[0].columns()[0].type_(), Type::INT8_ARRAY);
    rows[0].get(0)
}

/// Injects faults into PostgreSQL.
async fn inject_faults(postgres: Postgres, random: Random) {
    for _ in 0..random.between(0, 6) {
        sleep(random.millis(0, 200)).await;
        match random.between(0, 8) {
            0 => {
                postgres.set(Mode::Down);
                postgres.order(Order::Kill, true);
                sleep(random.millis(0, 3000)).await;
                postgres.set(Mode::Starting);
                sleep(random.millis(0, 1000)).await;
                postgres.set(Mode::Up);
            }
            1 => {
                // As after the crash of one backend.
                postgres.set(Mode::Starting);
                postgres.order(if random.percent(50) { Order::Terminate } else { Order::Kill }, true);
                sleep(random.millis(0, 500)).await;
                postgres.set(Mode::Up);
            }
            2 => postgres.order(Order::Kill, false),
            3 => postgres.order(Order::Terminate, false),
            4 => postgres.order(Order::Cancel, false),
            5 => postgres.order(Order::Freeze(random.millis(0, 200)), false),
            6 => postgres.order(Order::Freeze(random.millis(0, 5000)), false),
            _ => postgres.order(Order::Freeze(random.millis(0, 5000)), true),
        }
    }
}

pub async fn schedule(random: Random) {
    let postgres = Postgres::new(random.clone());
    let service = Service::new(&random);
    let faults = tokio::spawn(inject_faults(postgres.clone(), random.clone()));
    let clients = (0..random.between(5, 60)).map(|number| {
        let (service, random) = (service.clone(), random.clone());
        tokio::spawn(async move {
            let kinds = [Kind::Read, Kind::Write, Kind::BatchedRead, Kind::BatchedWrite, Kind::Coalesced, Kind::List];
            let kind = kinds[random.size(0, kinds.len())];
            let key = i64::try_from(number).expect("small") + 1000;
            let time = if random.percent(5) { random.between(0, 6000) } else { random.between(0, 30) };
            let client = IpAddr::from([10, 0, 0, u8::try_from(random.between(0, 3)).expect("small")]);
            sleep(random.millis(0, 500)).await;
            let request = service.request(kind, (key, time), client);
            let stays = if random.percent(30) { random.millis(0, 50) } else { HANGS };
            let answer = timeout(stays, request).await.ok();
            assert!(answer.is_some() || stays < HANGS, "{kind:?} {key} was never answered");
            Outcome { kind, key, answer, at: Instant::now() }
        })
    });
    let outcomes: Vec<Outcome> = join_all(clients).await.into_iter().map(|client| client.expect("no panic")).collect();
    faults.await.expect("no panic");
    sleep(QUIET_AFTER).await;
    for outcome in &outcomes {
        postgres.runs(|runs| check(outcome, runs));
    }
    check_nothing_is_left(&service, &postgres).await;
    check_everything_works(&service, &postgres).await;
}

/// Checks a client's outcome against what PostgreSQL has executed.
fn check(Outcome { kind, key, answer, at }: &Outcome, runs: &[Run]) {
    let of_key = || runs.iter().filter(|run| run.keys.contains(key));
    let applied = of_key().filter(|run| run.sql == WRITE && run.applied).count();
    match answer {
        Some(Ok(answered)) => {
            assert_eq!(answered, key, "an answer belongs to another request");
            if matches!(kind, Kind::Write | Kind::BatchedWrite) {
                assert_eq!(applied, 1, "{kind:?} {key} was acknowledged");
            }
        }
        Some(Err(StoreError::Unavailable { .. })) => {
            assert_eq!(applied, 0, "{kind:?} {key} was applied although it was reported as unavailable");
        }
        Some(Err(StoreError::OutcomeUnknown { .. })) => {
            assert!(matches!(kind, Kind::Write | Kind::BatchedWrite), "{kind:?} {key} changes nothing");
            assert!(applied <= 1, "{kind:?} {key} was applied {applied} times");
        }
        Some(Err(error)) => panic!("{kind:?} {key}: {error}"),
        None => assert!(applied <= 1, "{kind:?} {key} was applied {applied} times"),
    }
    for run in of_key() {
        let ended = run.ended.unwrap_or_else(|| panic!("{kind:?} {key} never ends"));
        // A batch continues for its other items.
        if answer.is_none() && run.keys.len() == 1 && *kind != Kind::Coalesced {
            let noticed = run.frozen.map_or(*at, |frozen| frozen.max(*at));
            assert!(ended <= noticed + CANCELLED_WITHIN, "{kind:?} {key} continued for {:?}", ended - noticed);
        }
    }
}

async fn check_nothing_is_left(service: &Service, postgres: &Postgres) {
    for pool in [&service.keys, service.lists.pool()] {
        assert_eq!(pool.usage().used, 0, "a session was not returned");
    }
    assert!(!service.coalescing.is_busy(), "a read is still running");
    assert!(
        !service.reading.is_busy(Duration::ZERO) && !service.writing.is_busy(Duration::ZERO),
        "a batch is still running"
    );
    let most = service.keys.size() + service.lists.pool().size();
    assert!(postgres.sessions() <= most as usize, "{} sessions are open", postgres.sessions());
}

/// Makes as many concurrent requests as there are sessions, and checks that each is answered.
async fn check_everything_works(service: &Service, postgres: &Postgres) {
    let keys = RefCell::new(1_000_000..);
    let next = || keys.borrow_mut().next().expect("endless");
    for _ in 0..2 {
        for kind in [Kind::Read, Kind::Write, Kind::BatchedRead, Kind::BatchedWrite, Kind::Coalesced, Kind::List] {
            let pool = if kind == Kind::List { service.lists.pool() } else { &service.keys };
            let batched = matches!(kind, Kind::BatchedRead | Kind::BatchedWrite);
            let count = if batched { 1 } else { pool.size() };
            let requests = (0..count).map(|_| async {
                let key = next();
                let answer = service.request(kind, (key, 1), IpAddr::from([10, 0, 0, 9])).await;
                assert!(matches!(answer, Ok(answered) if answered == key), "{kind:?} {key} afterwards: {answer:?}");
            });
            join_all(requests).await;
        }
    }
    check_nothing_is_left(service, postgres).await;
}
