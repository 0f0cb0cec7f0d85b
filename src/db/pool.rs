//! The connection pool: bb8 with deadlines, without a ping per checkout, and with fast detection of a lost server.
//!
//! bb8 hands out an idle connection without checking it (`test_on_check_out` costs a round trip, so it is off). Instead, this
//! module checks the driver's closed flag, which costs nothing and is set as soon as the socket reports the loss. A read is
//! retried once after connection loss; a write never is, because it may have been committed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bb8::RunError;
use metrics::{Counter, Histogram};
use tokio::sync::{Mutex, watch};
use tokio_postgres::Row;

use super::conninfo::ConnInfo;
use super::error::StoreError;
pub use super::manager::PoolKind;
use super::manager::{LogSink, Manager};
use super::operation::DbOperation;
use super::pooled_session::PooledSession;
use super::session::{Params, Query};
use super::wait_time::Waiting;

/// Name of the histogram of waits for a connection (OpenTelemetry semantic conventions, `db.client.connection.wait_time`).
pub const WAIT_TIME: &str = "db_client_connection_wait_time_seconds";
/// Name of the counter of timed-out waits (`db.client.connection.timeouts`).
pub const TIMEOUTS: &str = "db_client_connection_timeouts_total";
/// Name of the counter of failed connection attempts.
pub const CONNECTION_ERRORS: &str = "db_client_connection_errors_total";

/// While the server is unreachable, a request waits this long for one connection attempt instead of the whole checkout
/// deadline: responses take well under a second, and requests do not accumulate.
const CHECKOUT_WHILE_DOWN: Duration = Duration::from_millis(250);

/// Sizes and deadlines of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Purpose of its sessions.
    pub kind: PoolKind,
    /// Maximum number of open connections.
    pub size: u32,
    /// Longest wait for a connection.
    pub checkout_timeout: Duration,
    /// Longest run time of a statement, set on the server's session.
    pub statement_timeout: Duration,
}

/// A bounded set of sessions to one database.
#[derive(Clone)]
pub struct Pool {
    inner: bb8::Pool<Manager>,
    down: Arc<watch::Sender<bool>>,
    waiting: Arc<AtomicUsize>,
    size: u32,
    waits: Histogram,
    timeouts: Counter,
}

/// Number of connections in a pool, for its gauges.
#[derive(Debug, Clone, Copy)]
pub struct PoolUsage {
    /// Connections in use by a request.
    pub used: u32,
    /// Idle connections.
    pub idle: u32,
    /// Maximum number of connections.
    pub max: u32,
}

impl Pool {
    /// Creates a pool; connections are opened on demand, so an unreachable server does not prevent the start.
    pub fn new(conninfo: &ConnInfo, options: &PoolOptions) -> Self {
        let down = Arc::new(watch::Sender::new(false));
        let waiting: Arc<AtomicUsize> = Arc::default();
        let pool = options.kind.name();
        let errors = LogSink(metrics::counter!(CONNECTION_ERRORS, "pool" => pool));
        let manager = Manager {
            conninfo: conninfo.clone(),
            kind: options.kind,
            statement_timeout: options.statement_timeout,
            down: down.clone(),
            waiting: waiting.clone(),
            reconnecting: Mutex::default(),
            errors: errors.clone(),
        };
        let inner = bb8::Pool::builder()
            .max_size(options.size)
            .min_idle(1)
            .test_on_check_out(false)
            .connection_timeout(options.checkout_timeout)
            // bb8's retry delays grow with the checkout deadline; `Manager::connect` uses short ones.
            .retry_connection(false)
            .error_sink(Box::new(errors))
            .build_unchecked(manager);
        Self {
            inner,
            down,
            waiting,
            size: options.size,
            waits: metrics::histogram!(WAIT_TIME, "pool" => pool),
            timeouts: metrics::counter!(TIMEOUTS, "pool" => pool),
        }
    }

    /// Checks out a working session.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if none is available before the checkout deadline.
    pub async fn session(&self) -> Result<PooledSession, StoreError> {
        let begun = Instant::now();
        // After a server restart every idle connection may be broken. Each is dropped in turn, so the size is the bound.
        for _ in 0..=self.size {
            let session = self.checkout().await?;
            if !session.is_broken() {
                self.waits.record(begun.elapsed().as_secs_f64());
                return Ok(session);
            }
        }
        Err(StoreError::unavailable("every pooled connection was lost"))
    }

    async fn checkout(&self) -> Result<PooledSession, StoreError> {
        // A waiting caller is woken when a connection is returned. Without this yield, a task that has just returned one and
        // needs another would take it again before the waiting caller runs, indefinitely.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        let _counted = Counted::begin(&self.waiting);
        let mut down = self.down.subscribe();
        let timeout_while_down = async {
            // The sender lives as long as the pool, so this cannot fail.
            let _ = down.wait_for(|down| *down).await;
            tokio::time::sleep(CHECKOUT_WHILE_DOWN).await; // a deadline: the checkout in the other branch may finish earlier
        };
        let taken = tokio::select! {
            biased; // take a free connection before checking the other branch
            taken = self.inner.get_owned() => taken,
            () = timeout_while_down => Err(RunError::TimedOut),
        };
        taken.map(PooledSession::new).map_err(|error| match error {
            RunError::User(_) => StoreError::unavailable("cannot connect to postgres"), // the sink has logged the reason
            RunError::TimedOut => {
                self.timeouts.increment(1);
                StoreError::unavailable("no free connection before the checkout deadline")
            }
        })
    }

    /// Runs a statement that changes nothing; retries it once after connection loss.
    ///
    /// # Errors
    /// As [`super::session::Session::query`] and [`Pool::session`].
    pub async fn read(
        &self,
        operation: &DbOperation,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let _waiting = Waiting::begin();
        retried(|| async {
            let session = self.session().await?;
            let work = pin!(session.query(sql, params));
            operation.run(work).await
        })
        .await
    }

    /// Runs a statement that changes nothing and passes on each row as it arrives. A caller that can discard the rows of a
    /// failed attempt wraps this in [`retried`].
    ///
    /// # Errors
    /// As [`super::session::Session::for_each`] and [`Pool::session`].
    pub async fn for_each(
        &self,
        operation: &DbOperation,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError> {
        let _waiting = Waiting::begin();
        let session = self.session().await?;
        let work = pin!(session.for_each(query, each));
        operation.run(work).await
    }

    /// Runs a statement that changes data, once. A failure after the statement was sent (a lost connection, a deadline) may
    /// leave it committed; a failure before that, because no session was free, does not.
    ///
    /// # Errors
    /// As [`super::session::Session::write`] and [`Pool::session`].
    pub async fn write(
        &self,
        operation: &DbOperation,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let _waiting = Waiting::begin();
        let session = self.session().await?;
        let work = pin!(session.write(sql, params));
        operation.run(work).await
    }

    /// Maximum number of open connections.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Number of checkouts so far.
    pub fn checkouts(&self) -> u64 {
        self.inner.state().statistics.get_started
    }

    /// Current number of connections.
    pub fn usage(&self) -> PoolUsage {
        let state = self.inner.state();
        PoolUsage { used: state.connections - state.idle_connections, idle: state.idle_connections, max: self.size }
    }
}

/// Counts a caller waiting for a connection until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Retries a read once after connection loss or a failure of the replica.
///
/// # Errors
/// The last attempt's.
pub async fn retried<T, F>(read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match read().await {
        Err(error) if error.is_worth_reading_again() => read().await,
        outcome => outcome,
    }
}
