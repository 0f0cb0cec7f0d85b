//! The cache shared by replicas: Redis, which may be unreachable, slow, full, empty, locked, or contain invalid values.
//!
//! No failure here fails a request or delays it beyond its deadline: failures of Redis are counted, and logged once a minute. A
//! single task connects. While there is no connection, requests bypass Redis without waiting; a connection that breaks or
//! misses a deadline is closed for all of them. (redis' own `ConnectionManager` never reconnects after a rejected password, and
//! lets each request wait for a Redis that hangs.)

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, cmd};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use super::cached_response::CachedResponse;

/// Pause before the next connection attempt, so that a struggling Redis gets at most two attempts a second.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Maximum time to open a connection, including name resolution and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time that a replica that crashed during a refresh blocks the others' refresh of this response. By default no
/// statement takes longer.
const LOCK_TTL: Duration = Duration::from_secs(5);
/// Interval at which a replica polls for the refresh of another one.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// Minimum interval between warnings about Redis.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Releases the lock if we still hold it: it may have expired and been acquired by another replica.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// Responses cached in Redis.
pub struct RedisCache {
    link: Arc<watch::Sender<Link>>,
    faults: Arc<Faults>,
    deadline: Duration,
    ttl: Duration,
    _connecting: JoinSet<()>, // ends with us
}

/// The connection, if there is one. Its number distinguishes its errors from late errors of the previous one.
#[derive(Clone)]
enum Link {
    /// The first attempt is in progress; requests wait for it within their deadline.
    Connecting,
    Up(u64, MultiplexedConnection),
    Down,
}

/// Whether this process must refresh a response.
#[derive(Debug)]
pub enum Acquisition {
    /// Another replica has refreshed it.
    Refreshed(CachedResponse),
    /// This process must refresh it; holds the lock if Redis granted one.
    Granted(Option<Lock>),
}

/// A lock across replicas for the refresh of one response.
#[derive(Debug)]
pub struct Lock {
    key: String,
    token: String,
}

impl RedisCache {
    /// Starts connecting and returns immediately.
    pub fn start(client: Client, deadline: Duration, ttl: Duration) -> Self {
        let link = Arc::new(watch::Sender::new(Link::Connecting));
        let faults = Arc::new(Faults::default());
        let mut connecting = JoinSet::new();
        connecting.spawn(keep_connected(client, deadline, link.clone(), faults.clone()));
        Self { link, faults, deadline, ttl, _connecting: connecting }
    }

    /// The time until which a request that starts now waits for Redis.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Reads the response with this key, if there is one of this generation.
    pub async fn get(&self, key: &str, generation: Uuid, deadline: Instant) -> Option<CachedResponse> {
        let value = self.call::<Option<Vec<u8>>>(cmd("GET").arg(value_key(key)), deadline).await??;
        let Some(entry) = CachedResponse::decode(value) else {
            self.faults.report("corrupt", "a stored value is corrupt");
            return None;
        };
        (entry.generation == generation).then_some(entry)
    }

    /// Waits until the response exists or the lock is acquired; if Redis fails or time runs out, this process refreshes without
    /// a lock.
    pub async fn acquire(&self, key: &str, generation: Uuid, deadline: Instant) -> Acquisition {
        // The key includes the generation, so a refresh after an import does not wait for one before it.
        let lock = Lock { key: format!("{}:{generation}:lock", value_key(key)), token: Uuid::new_v4().to_string() };
        let mut take = cmd("SET");
        take.arg(&lock.key).arg(&lock.token).arg("NX").arg("PX").arg(millis(LOCK_TTL));
        loop {
            let Some(taken) = self.call::<Option<String>>(&take, deadline).await else {
                return Acquisition::Granted(None);
            };
            if taken.is_some() {
                // The previous holder of the lock stored its response before releasing it.
                return match self.get(key, generation, deadline).await {
                    Some(entry) => {
                        self.release(&lock, deadline).await;
                        Acquisition::Refreshed(entry)
                    }
                    None => Acquisition::Granted(Some(lock)),
                };
            }
            if Instant::now() + LOCK_POLL >= deadline {
                return Acquisition::Granted(None);
            }
            sleep(LOCK_POLL).await; // polling: Redis does not announce that another server has released the lock
        }
    }

    /// Stores a response and releases its lock.
    pub async fn put(&self, key: &str, entry: &CachedResponse, lock: Option<Lock>) {
        let deadline = self.deadline();
        let mut set = cmd("SET");
        set.arg(value_key(key)).arg(entry.encode()).arg("PX").arg(millis(self.ttl));
        let _: Option<()> = self.call(&set, deadline).await;
        if let Some(lock) = lock {
            self.release(&lock, deadline).await;
        }
    }

    /// Releases a lock; if that fails, it expires.
    pub async fn release(&self, lock: &Lock, deadline: Instant) {
        let mut release = cmd("EVAL");
        release.arg(RELEASE).arg(1).arg(&lock.key).arg(&lock.token);
        let _: Option<()> = self.call(&release, deadline).await;
    }

    /// Runs a command; `None` if it failed, which is reported, or if there is no connection.
    async fn call<T: FromRedisValue>(&self, command: &Cmd, deadline: Instant) -> Option<T> {
        let (number, mut connection) = self.connection(deadline).await?;
        let began = Instant::now();
        match timeout_at(deadline, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => {
                if error.is_io_error() || error.is_unrecoverable_error() {
                    self.disconnect(number);
                }
                self.faults.report(reason(&error), &error.to_string());
            }
            Err(_) => {
                // A short remaining time may not be the fault of Redis.
                if began.elapsed() >= self.deadline / 2 {
                    self.disconnect(number);
                }
                self.faults.report("timeout", "no response before the deadline");
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

    /// Closes a connection for all requests and wakes the task that connects.
    fn disconnect(&self, number: u64) {
        self.link.send_if_modified(|link| {
            let current = matches!(link, Link::Up(up, _) if *up == number);
            if current {
                *link = Link::Down;
            }
            current
        });
    }
}

/// Connects, and reconnects whenever the connection was closed.
async fn keep_connected(client: Client, deadline: Duration, link: Arc<watch::Sender<Link>>, faults: Arc<Faults>) {
    let mut watched = link.subscribe();
    for number in 0.. {
        match connect(&client, deadline).await {
            Ok(connection) => {
                link.send_replace(Link::Up(number, connection));
                metrics::gauge!("cache_redis_up").set(1.0);
                tracing::info!("the cache is connected to redis");
                // An error is impossible, because the sender lives in this function.
                let _ = watched.wait_for(|link| matches!(link, Link::Down)).await;
            }
            Err(error) => {
                faults.report(reason(&error), &error.to_string());
                link.send_replace(Link::Down);
            }
        }
        metrics::gauge!("cache_redis_up").set(0.0);
        sleep(RETRY_DELAY).await; // there is no notification when Redis becomes reachable
    }
}

/// Opens a connection that responds within the deadline of requests; a slower one would only delay them.
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

/// The `reason` label of an error.
fn reason(error: &RedisError) -> &'static str {
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => "password",
        (_, Some("OOM")) => "full",
        _ if error.is_timeout() => "timeout",
        _ if error.is_io_error() || error.is_unrecoverable_error() => "connection",
        _ => "refused",
    }
}

/// Errors: counted each time, logged once a minute.
#[derive(Debug, Default)]
struct Faults {
    warnings: Mutex<WarningState>,
}

#[derive(Debug, Default)]
struct WarningState {
    last: Option<Instant>,
    kept_back: u64,
}

impl Faults {
    fn report(&self, reason: &'static str, error: &str) {
        metrics::counter!("cache_errors_total", "reason" => reason).increment(1);
        if let Some(kept_back) = self.warning_due(Instant::now()) {
            tracing::warn!(reason, error, kept_back, "redis is failing; responses come from postgres");
        }
    }

    /// Returns the number of errors not logged since the last warning if a warning is due.
    fn warning_due(&self, now: Instant) -> Option<u64> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.last.is_some_and(|last| now.duration_since(last) < WARN_EVERY) {
            warnings.kept_back += 1;
            return None;
        }
        warnings.last = Some(now);
        Some(std::mem::take(&mut warnings.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_logged_once_a_minute_with_the_number_kept_back() {
        let faults = Faults::default();
        let start = Instant::now();
        let warnings: Vec<_> = (0..150).map(|second| faults.warning_due(start + Duration::from_secs(second))).collect();
        let expected = |second| match second {
            0 => Some(0),
            60 | 120 => Some(59),
            _ => None,
        };
        assert_eq!(warnings, (0..150).map(expected).collect::<Vec<_>>());
    }
}
