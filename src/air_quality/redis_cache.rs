//! The cache that replicas share: Redis, which may be away, slow, full, empty, locked or full of garbage.
//!
//! Nothing here fails a request and nothing keeps one beyond its deadline: what Redis cannot do is counted, and warned of
//! once a minute. One task alone connects. While there is no connection, requests pass Redis by without waiting; a
//! connection that breaks or lets a deadline pass is given up for all of them. (redis' own `ConnectionManager` never
//! connects again once a password was refused, and lets each request find out anew that Redis hangs.)

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, cmd};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::entry::Entry;

/// Pause before the next attempt to connect, so two attempts a second at most trouble a Redis that struggles.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Longest that opening a connection may take, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A replica that dies while it refreshes blocks the others' refresh of this answer for so long at most. The longest
/// statement takes no longer by default.
const LOCK_TTL: Duration = Duration::from_secs(5);
/// How often a replica that waits for another's refresh looks whether it is done.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// Warnings about Redis come at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Removes the lock if it is still ours: it may have expired and be another's by now.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// Answers in Redis.
pub struct RedisCache {
    link: Arc<watch::Sender<Link>>,
    faults: Arc<Faults>,
    deadline: Duration,
    ttl: Duration,
    _connecting: JoinSet<()>, // ends with us
}

/// The connection, if there is one. Its number tells a fault of this one from a late fault of the one before.
#[derive(Clone)]
enum Link {
    /// The first attempt is under way; worth waiting for, within the deadline.
    Connecting,
    Up(u64, MultiplexedConnection),
    Down,
}

/// Whose turn it is to refresh an answer.
#[derive(Debug)]
pub enum Turn {
    /// Another replica has done it meanwhile.
    Done(Entry),
    /// Ours; the lock, if Redis could give one.
    Ours(Option<Lock>),
}

/// The right to refresh one answer, over all replicas.
#[derive(Debug)]
pub struct Lock {
    key: String,
    token: String,
}

impl RedisCache {
    /// Begins to connect and returns at once.
    pub fn start(client: Client, deadline: Duration, ttl: Duration) -> Self {
        let link = Arc::new(watch::Sender::new(Link::Connecting));
        let faults = Arc::new(Faults::default());
        let mut connecting = JoinSet::new();
        connecting.spawn(keep_connected(client, deadline, link.clone(), faults.clone()));
        Self { link, faults, deadline, ttl, _connecting: connecting }
    }

    /// When a request that begins now stops to wait for Redis.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// The answer under this key, if there is one of this generation.
    pub async fn get(&self, key: &str, generation: Uuid, deadline: Instant) -> Option<Entry> {
        let value = self.call::<Option<Vec<u8>>>(cmd("GET").arg(value_key(key)), deadline).await??;
        let Some(entry) = Entry::decode(value) else {
            self.faults.report("corrupt", "a value is not what was stored");
            return None;
        };
        (entry.generation == generation).then_some(entry)
    }

    /// Waits until the answer is there or its refresh is ours; when Redis or the time fails us, it is ours too.
    pub async fn take_turn(&self, key: &str, generation: Uuid, deadline: Instant) -> Turn {
        // The generation is part of it: who refreshes after an import does not wait for who began before.
        let lock = Lock { key: format!("{}:{generation}:lock", value_key(key)), token: Uuid::new_v4().to_string() };
        let mut take = cmd("SET");
        take.arg(&lock.key).arg(&lock.token).arg("NX").arg("PX").arg(millis(LOCK_TTL));
        loop {
            let Some(taken) = self.call::<Option<String>>(&take, deadline).await else {
                return Turn::Ours(None);
            };
            if taken.is_some() {
                // Whoever held the lock before us has stored the answer before letting go.
                return match self.get(key, generation, deadline).await {
                    Some(entry) => {
                        self.release(&lock, deadline).await;
                        Turn::Done(entry)
                    }
                    None => Turn::Ours(Some(lock)),
                };
            }
            if Instant::now() + LOCK_POLL >= deadline {
                return Turn::Ours(None);
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// Stores an answer and lets go of its lock.
    pub async fn put(&self, key: &str, entry: &Entry, lock: Option<Lock>) {
        let deadline = self.deadline();
        let mut set = cmd("SET");
        set.arg(value_key(key)).arg(entry.encode()).arg("PX").arg(millis(self.ttl));
        let _: Option<()> = self.call(&set, deadline).await;
        if let Some(lock) = lock {
            self.release(&lock, deadline).await;
        }
    }

    /// Lets go of a lock; one that stays expires.
    pub async fn release(&self, lock: &Lock, deadline: Instant) {
        let mut release = cmd("EVAL");
        release.arg(RELEASE).arg(1).arg(&lock.key).arg(&lock.token);
        let _: Option<()> = self.call(&release, deadline).await;
    }

    /// Runs one command; `None` when it failed, which is reported, or when there is no connection.
    async fn call<T: FromRedisValue>(&self, command: &Cmd, deadline: Instant) -> Option<T> {
        let (number, mut connection) = self.connection(deadline).await?;
        let began = Instant::now();
        match timeout_at(deadline, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => {
                if error.is_io_error() || error.is_unrecoverable_error() {
                    self.hang_up(number);
                }
                self.faults.report(reason(&error), &error.to_string());
            }
            Err(_) => {
                // What was left of the time may have been short for reasons that are none of Redis' fault.
                if began.elapsed() >= self.deadline / 2 {
                    self.hang_up(number);
                }
                self.faults.report("timeout", "no answer before the deadline");
            }
        }
        None
    }

    async fn connection(&self, deadline: Instant) -> Option<(u64, MultiplexedConnection)> {
        let mut link = self.link.subscribe();
        let settled = link.wait_for(|link| !matches!(link, Link::Connecting));
        match &*timeout_at(deadline, settled).await.ok()?.ok()? {
            Link::Up(number, connection) => Some((*number, connection.clone())),
            Link::Connecting | Link::Down => None,
        }
    }

    /// Gives a connection up for everybody; the task that connects sees it.
    fn hang_up(&self, number: u64) {
        self.link.send_if_modified(|link| {
            let current = matches!(link, Link::Up(up, _) if *up == number);
            if current {
                *link = Link::Down;
            }
            current
        });
    }
}

/// Connects, and connects again whenever the connection was given up.
async fn keep_connected(client: Client, deadline: Duration, link: Arc<watch::Sender<Link>>, faults: Arc<Faults>) {
    let mut watched = link.subscribe();
    for number in 0.. {
        match connect(&client, deadline).await {
            Ok(connection) => {
                link.send_replace(Link::Up(number, connection));
                metrics::gauge!("cache_redis_up").set(1.0);
                tracing::info!("the cache is connected to redis");
                // An error means that the sender is gone, which lives in this function.
                let _ = watched.wait_for(|link| matches!(link, Link::Down)).await;
            }
            Err(error) => {
                faults.report(reason(&error), &error.to_string());
                link.send_replace(Link::Down);
            }
        }
        metrics::gauge!("cache_redis_up").set(0.0);
        sleep(RETRY_DELAY).await;
    }
}

/// A connection that has answered within the deadline requests give it; a slower one would only delay them.
async fn connect(client: &Client, deadline: Duration) -> Result<MultiplexedConnection, RedisError> {
    let slow = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = timeout(CONNECT_TIMEOUT, connecting).await.map_err(slow)??;
    timeout(deadline, cmd("PING").exec_async(&mut connection)).await.map_err(slow)??;
    Ok(connection)
}

fn value_key(key: &str) -> String {
    format!("pycrudapi:air_quality:{key}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The label of a fault.
fn reason(error: &RedisError) -> &'static str {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => "password",
        (_, Some("OOM")) => "full",
        _ if error.is_timeout() => "timeout",
        _ if error.is_io_error() || error.is_unrecoverable_error() => "connection",
        _ => "refused",
    }
}

/// What went wrong: counted each time, told once a minute.
#[derive(Debug, Default)]
struct Faults {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    kept_back: u64,
}

impl Faults {
    fn report(&self, reason: &'static str, error: &str) {
        metrics::counter!("cache_errors_total", "reason" => reason).increment(1);
        if let Some(kept_back) = self.tell(Instant::now()) {
            tracing::warn!(reason, error, kept_back, "redis fails the cache; answers come from postgres");
        }
    }

    /// Whether to tell now, and of how many faults nobody was told since the last time.
    fn tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.duration_since(last) < WARN_EVERY) {
            told.kept_back += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_once_a_minute_with_the_number_kept_back() {
        let faults = Faults::default();
        let start = Instant::now();
        let told: Vec<_> = (0..150).map(|second| faults.tell(start + Duration::from_secs(second))).collect();
        let expected = |second| match second {
            0 => Some(0),
            60 | 120 => Some(59),
            _ => None,
        };
        assert_eq!(told, (0..150).map(expected).collect::<Vec<_>>());
    }
}
