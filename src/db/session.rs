//! One PostgreSQL connection together with the statements prepared on it.
//!
//! A statement is prepared the first time a connection runs it and kept until the connection closes, so a request costs one
//! round trip. Besides the server's `statement_timeout`, every query has a deadline on this side: a server that stops
//! responding cannot block a request. A session records whether the work it started has ended; if not, it must be cancelled
//! before the session is used again (`pooled_session`).
//!
//! Each statement specifies how it is planned ([`Planner`]), and a session changes its settings when that differs from the
//! previous statement.

use std::pin::pin;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::attempt::{Attempt, Unreplicated};
use super::connect::{ConnectError, Connection, Server};
use super::error::StoreError;
use super::generation::Generation;
use super::planner::Planner;
use crate::trace::current::Statement as Recorded;

/// The value of a statement's parameter.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// Values for a statement's parameters, in order.
pub type Params<'a> = &'a [Param<'a>];

/// As [`Params`], with the type of each parameter.
pub type TypedParams<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A statement with the values of its parameters.
#[derive(Clone, Copy)]
pub enum Query<'a> {
    /// Prepared the first time and kept; planned as [`Planner::Keyed`].
    Prepared(&'static str, Params<'a>),
    /// Planned for its values each time: one round trip, and no plan is kept.
    Once(Planner, &'a str, TypedParams<'a>),
}

/// How much longer than the server's `statement_timeout` this side waits, so that the server's own, more precise error normally
/// arrives first.
pub(super) const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// A cancel request is repeated at this interval while the statement continues: the first may have arrived before PostgreSQL
/// had read the statement.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);

/// Maximum age of a plan. Planning again takes about 50 µs, and each session has about ten plans.
const PLAN_MAX_AGE: Duration = Duration::from_secs(1);

/// A connection and its prepared statements.
pub struct Session {
    client: Client,
    server: Server,
    driver: JoinHandle<()>,
    /// About ten, identified by the address of their text: comparing addresses costs less than hashing texts.
    statements: Mutex<Vec<(&'static str, Statement)>>,
    /// The current planner settings and when plans were last discarded; `None` while that is being changed.
    planner: std::sync::Mutex<Option<(Planner, Instant)>>,
    deadline: Duration,
    /// Whether work was started whose end has not been seen.
    busy: AtomicBool,
    /// Whether a transaction may be open although no statement is running.
    in_transaction: AtomicBool,
    /// Whether the session must not be used any more.
    broken: AtomicBool,
    unreplicated: Unreplicated,
    generation: Generation,
}

impl Session {
    /// Configures a new connection: deadlines on the server's side, UTC, plans through indexes, and the additional
    /// `settings` (empty, or `; set ...`).
    ///
    /// # Errors
    /// If the connection is lost or the server rejects a setting.
    pub async fn new(
        connection: Connection,
        statement_timeout: Duration,
        settings: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let Connection { client, server, driver, unreplicated, generation, .. } = connection;
        let ms = statement_timeout.as_millis();
        client
            .batch_execute(&format!(
                "set statement_timeout = {ms}; set idle_in_transaction_session_timeout = {ms}; set timezone = 'UTC'; \
                                  set extra_float_digits = 1; {DETECT_DISCONNECT}; {}{}",
                Planner::Keyed.sql(),
                settings
            ))
            .await?;
        Ok(Self {
            client,
            server,
            driver,
            statements: Mutex::new(Vec::new()),
            planner: std::sync::Mutex::new(Some((Planner::Keyed, Instant::now()))),
            deadline: statement_timeout + DEADLINE_GRACE,
            busy: AtomicBool::new(false),
            in_transaction: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            unreplicated,
            generation,
        })
    }

    /// Whether the session must not be used again: its connection is closed, it was marked broken, the server announced its
    /// shutdown, or its server is not the primary any more.
    pub fn is_broken(&self) -> bool {
        self.client.is_closed() || self.broken.load(Ordering::Relaxed) || self.generation.is_stale()
    }

    /// Whether work was started whose end has not been seen.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether a transaction may be open although no statement is running: work on [`Session::client_mut`] failed, and the
    /// failed statement may have been its `commit` or `rollback`.
    pub fn may_be_in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Relaxed)
    }

    /// Closes the connection when this session is dropped, whatever is running on it.
    pub fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// The driver's client, for work that has no prepared form: transactions of keyed statements, and `COPY`. Sessions that
    /// run these run nothing else. The session is busy until [`Session::finish`] or [`Session::mark_idle`].
    pub fn client_mut(&mut self) -> &mut Client {
        self.busy.store(true, Ordering::Relaxed);
        self.in_transaction.store(true, Ordering::Relaxed);
        &mut self.client
    }

    /// Records that all work started on this session has ended.
    pub fn mark_idle(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.in_transaction.store(false, Ordering::Relaxed);
    }

    /// Cancels what is running on this session, waits until it has ended, and rolls back a transaction that is still open;
    /// returns whether the session can be used again.
    pub async fn recover(&self) -> bool {
        let ended = async {
            if self.is_busy() {
                self.cancel().await?;
            }
            // No response is pending any more. A transaction whose end was cancelled has failed but is still open.
            match self.client.batch_execute("select").await {
                Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {
                    self.client.batch_execute("rollback").await
                }
                outcome => outcome,
            }
            .map_err(ConnectError::from)
        };
        match ended.await {
            Ok(()) => {
                self.mark_idle();
                true
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot recover a session");
                false
            }
        }
    }

    /// Cancels what is running on this session and waits until it has ended.
    async fn cancel(&self) -> Result<(), ConnectError> {
        let token = self.client.cancel_token();
        // The response follows that of the abandoned statement. A late cancel request may cancel this statement instead.
        let mut behind = pin!(self.client.batch_execute("select"));
        loop {
            self.server.cancel(&token).await?;
            if timeout(CANCEL_AGAIN, &mut behind).await.is_ok() {
                return Ok(());
            }
        }
    }

    /// Runs a statement and collects its rows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the connection is lost or the deadline passes, otherwise the server's error.
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let work = pin!(async {
            let statement = self.statement(sql).await?;
            self.send(sql, &statement, params).await
        });
        self.finish(timeout(self.deadline, self.planned(Planner::Keyed, work)).await)
    }

    /// Runs a statement that changes data and collects its rows.
    ///
    /// # Errors
    /// As [`Session::query`], or [`StoreError::OutcomeUnknown`] if it was sent and its response is missing.
    pub async fn write(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let attempt = self.attempt();
        let work = pin!(async {
            let statement = self.statement(sql).await?;
            attempt.sending();
            self.send(sql, &statement, params).await
        });
        attempt.classify(self.finish(timeout(self.deadline, self.planned(Planner::Keyed, work)).await))
    }

    /// Runs a statement without tables or parameters, for which the plan does not matter, with its own time limit.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query_within(&self, sql: &'static str, limit: Duration) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let work = async { self.client.query(&self.statement(sql).await?, &[]).await };
        self.finish(timeout(limit, work).await)
    }

    /// Starts a change on this connection.
    pub fn attempt(&self) -> Attempt {
        Attempt::new(&self.unreplicated)
    }

    /// Runs a statement and passes on each row as it arrives.
    ///
    /// # Errors
    /// As [`Session::query`], or the error of `each`.
    pub async fn for_each(
        &self,
        query: Query<'_>,
        each: &mut (impl FnMut(Row) -> Result<(), StoreError> + Send),
    ) -> Result<(), StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let mut refused = false;
        let planner = match query {
            Query::Prepared(..) => Planner::Keyed,
            Query::Once(planner, ..) => planner,
        };
        let work = async {
            let rows = match query {
                Query::Prepared(sql, params) => {
                    let statement = self.statement(sql).await?;
                    match Recorded::get() {
                        None => self.client.query_raw(&statement, params.iter().copied()).await?,
                        Some(recorded) => match recorded.sent_prepared(sql) {
                            None => {
                                let sql = recorded.sent(sql.into());
                                self.client.query_typed_raw(&sql, typed(&statement, params)).await?
                            }
                            Some(comment) => {
                                let rows = self.client.query_raw(&statement, params.iter().copied());
                                join(self.client.batch_execute(&comment), rows).await.1?
                            }
                        },
                    }
                }
                Query::Once(_, sql, params) => {
                    let commented = Recorded::get().map(|recorded| recorded.sent(sql.to_owned().into()));
                    let params = params.iter().map(|(value, of)| (*value, of.clone()));
                    self.client.query_typed_raw(commented.as_deref().unwrap_or(sql), params).await?
                }
            };
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                each(row).inspect_err(|_| refused = true)?;
            }
            Ok::<_, StoreError>(())
        };
        let outcome = self.finish(timeout(self.deadline, self.planned(planner, work)).await);
        if refused {
            self.busy.store(true, Ordering::Relaxed); // the remaining rows are still arriving
        }
        outcome
    }

    /// Runs work whose statements require this planner and recent plans. The necessary setting change is sent ahead of the
    /// work, in the same round trip.
    async fn planned<T, E>(&self, planner: Planner, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let current = || self.planner.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match *current() {
            Some((held, since)) if held == planner && since.elapsed() < PLAN_MAX_AGE => None,
            Some((held, _)) if held == planner => Some("discard plans"),
            _ => Some(planner.sql()),
        };
        let Some(change) = change else { return work.await };
        // Unknown until PostgreSQL has confirmed it: if this future is dropped meanwhile, the next statement sets it
        // again.
        *current() = None;
        let (changed, done) = join(self.client.batch_execute(change), work).await;
        *current() = changed.is_ok().then(|| (planner, Instant::now()));
        done
    }

    /// Longest run time of work on this connection.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Evaluates work that ran with the deadline: records whether it has ended and whether this connection can be used
    /// again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the connection is lost or the deadline passed, otherwise the work's error.
    pub fn finish<T, E: Into<StoreError>>(&self, outcome: Result<Result<T, E>, Elapsed>) -> Result<T, StoreError> {
        let Ok(ended) = outcome else {
            return Err(StoreError::unavailable("query deadline passed")); // still busy
        };
        let was_in_transaction = self.may_be_in_transaction();
        self.mark_idle();
        let error = match ended {
            Ok(value) => return Ok(value),
            Err(error) => error.into(),
        };
        self.in_transaction.store(was_in_transaction, Ordering::Relaxed);
        // A server that shuts down reports it before the socket closes; this connection must not be used again.
        if error.is_connection_lost() {
            self.mark_broken();
        }
        if error.is_read_only() {
            self.generation.invalidate();
        }
        Err(error)
    }

    /// Sends a prepared statement. A traced statement carries its trace context in a comment, which a prepared one cannot:
    /// its text is sent again, with the types that are known already, and planned for this execution only. If too many
    /// statements are traced for that, the comment is sent ahead of the prepared statement, in the same round trip.
    async fn send(
        &self,
        sql: &'static str,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match Recorded::get() {
            None => self.client.query(statement, params).await,
            // Boxed, so that a future without tracing does not reserve space for it.
            Some(recorded) => Box::pin(self.send_traced(sql, statement, params, &recorded)).await,
        }
    }

    async fn send_traced(
        &self,
        sql: &'static str,
        statement: &Statement,
        params: Params<'_>,
        recorded: &Recorded,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match recorded.sent_prepared(sql) {
            None => {
                let typed: Vec<_> = typed(statement, params).collect();
                self.client.query_typed(&recorded.sent(sql.into()), &typed).await
            }
            Some(comment) => join(self.client.batch_execute(&comment), self.client.query(statement, params)).await.1,
        }
    }

    async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let mut statements = self.statements.lock().await;
        if let Some((_, statement)) = statements.iter().find(|(text, _)| std::ptr::eq(*text, sql)) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        statements.push((sql, statement.clone()));
        Ok(statement)
    }
}

/// Parameter values with their types in a statement.
fn typed<'a>(statement: &Statement, params: Params<'a>) -> impl ExactSizeIterator<Item = (Param<'a>, Type)> {
    params.iter().copied().zip(statement.params().iter().cloned())
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver would wait until the running statement has ended.
        if self.is_broken() {
            self.driver.abort();
        }
    }
}

/// How often PostgreSQL checks, while it runs a statement, whether the client is still connected, so that a killed server
/// process or a closed connection leaves no statement running. PostgreSQL 13 does not have this setting.
const DETECT_DISCONNECT: &str = "select set_config(name, '500ms', false) from pg_settings \
     where name = 'client_connection_check_interval'";
