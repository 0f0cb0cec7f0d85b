//! The connection pool: bb8 without a ping per checkout, with deadlines, and quick to notice a lost server.
//!
//! bb8 hands out an idle connection without looking at it (`test_on_check_out` costs a round trip, so it is off);
//! this module looks at the driver's own closed flag instead, which costs nothing and is set as soon as the socket
//! reports the loss. A read whose connection dies under it is tried once more; a write never is, because it may have
//! been committed.

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
use super::lease::Lease;
pub use super::manager::PoolKind;
use super::manager::{LogSink, Manager};
use super::operation::DbOperation;
use super::session::{Params, Query};
use super::wait_time::Waiting;

/// Name of the histogram of waits for a connection (OpenTelemetry semantic conventions, `db.client.connection.wait_time`).
pub const WAIT_TIME: &str = "db_client_connection_wait_time_seconds";
/// Name of the counter of waits that were given up (`db.client.connection.timeouts`).
pub const TIMEOUTS: &str = "db_client_connection_timeouts_total";
/// Name of the counter of connection attempts that failed.
pub const CONNECTION_ERRORS: &str = "db_client_connection_errors_total";

/// While the server is known to be away a request waits this long for one connection attempt, not the whole checkout
/// deadline: answers stay well within a second and do not pile up.
const CHECKOUT_WHILE_DOWN: Duration = Duration::from_millis(250);

/// Sizes and deadlines of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// What its sessions are for.
    pub kind: PoolKind,
    /// Most connections open at once.
    pub size: u32,
    /// Longest wait for a connection.
    pub checkout_timeout: Duration,
    /// Longest a statement may run, set on the server's session.
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

/// How many connections a pool holds, for its gauges.
#[derive(Debug, Clone, Copy)]
pub struct PoolUsage {
    /// Connections in use by a request.
    pub used: u32,
    /// Connections open and waiting.
    pub idle: u32,
    /// Most connections allowed.
    pub max: u32,
}

impl Pool {
    /// Makes a pool; connections are opened on demand, so a server that is away does not fail the start.
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
            asking: Mutex::default(),
            errors: errors.clone(),
        };
        let inner = bb8::Pool::builder()
            .max_size(options.size)
            .min_idle(1)
            .test_on_check_out(false)
            .connection_timeout(options.checkout_timeout)
            // Its own pauses grow with the checkout deadline; `Manager::connect` makes short ones.
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

    /// Takes a live session out of the pool.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when none can be had before the checkout deadline.
    pub async fn session(&self) -> Result<Lease, StoreError> {
        let begun = Instant::now();
        // After a server restart every idle connection may be dead: each is dropped in turn, so the bound is the size.
        for _ in 0..=self.size {
            let session = self.checkout().await?;
            if !session.is_broken() {
                self.waits.record(begun.elapsed().as_secs_f64());
                return Ok(session);
            }
        }
        Err(StoreError::unavailable("every pooled connection was lost"))
    }

    async fn checkout(&self) -> Result<Lease, StoreError> {
        // Whoever waits is woken when a connection comes back; without this pause, who has just given one back and wants
        // another would take it before the other runs, again and again.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        let _counted = Counted::begin(&self.waiting);
        let mut down = self.down.subscribe();
        let patience_while_down = async {
            // The sender lives as long as the pool, so there is no error.
            let _ = down.wait_for(|down| *down).await;
            tokio::time::sleep(CHECKOUT_WHILE_DOWN).await; // a deadline: the checkout beside it ends it sooner
        };
        let taken = tokio::select! {
            biased; // a free connection is taken without a look at the rest
            taken = self.inner.get_owned() => taken,
            () = patience_while_down => Err(RunError::TimedOut),
        };
        taken.map(Lease::new).map_err(|error| match error {
            RunError::User(_) => StoreError::unavailable("cannot connect to postgres"), // the sink has logged why
            RunError::TimedOut => {
                self.timeouts.increment(1);
                StoreError::unavailable("no free connection before the checkout deadline")
            }
        })
    }

    /// Runs a statement that changes nothing; tries once more when the connection is lost under it.
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

    /// Runs a statement that changes nothing and hands over each row as it arrives. Whoever may forget the rows of an
    /// attempt that broke off wraps this in [`retried`].
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

    /// Runs a statement that changes data, once. What fails after the statement was sent (a lost connection, a deadline)
    /// may have been committed all the same; what fails before, because no session was free, was not.
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

    /// Most connections open at once.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How often a session was taken so far.
    pub fn checkouts(&self) -> u64 {
        self.inner.state().statistics.get_started
    }

    /// What the pool holds now.
    pub fn usage(&self) -> PoolUsage {
        let state = self.inner.state();
        PoolUsage { used: state.connections - state.idle_connections, idle: state.idle_connections, max: self.size }
    }
}

/// Somebody who waits for a connection; no longer when this is dropped.
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

/// Reads once more when the connection is lost under a reading, or the replica failed it.
///
/// # Errors
/// The reading's.
pub async fn retried<T, F>(read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match read().await {
        Err(error) if error.is_worth_reading_again() => read().await,
        outcome => outcome,
    }
}
