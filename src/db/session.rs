//! One PostgreSQL connection together with the statements prepared on it.
//!
//! A statement is prepared the first time a connection runs it and kept until the connection closes, so a
//! request costs one round trip. Every query has a deadline on this side besides the server's own
//! `statement_timeout`: a server that stopped answering cannot hold a request. A session knows whether the end of what
//! it began has been seen; if not, it must be cancelled before anybody else may use it (`lease`).
//!
//! A statement says how it is to be planned ([`Planner`]), and a session changes its settings when that differs from the
//! statement before.

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
use super::term::Term;
use crate::trace::current::Statement as Recorded;

/// The value of a statement's parameter.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// Values for a statement's parameters, in order.
pub type Params<'a> = &'a [Param<'a>];

/// The same with the type that each parameter has in the statement.
pub type TypedParams<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A statement with the values of its parameters.
#[derive(Clone, Copy)]
pub enum Query<'a> {
    /// Prepared the first time, and kept; planned as [`Planner::Keyed`].
    Prepared(&'static str, Params<'a>),
    /// Planned for its values each time: one round trip, and nothing is kept of it.
    Once(Planner, &'a str, TypedParams<'a>),
}

/// How PostgreSQL is to plan a statement.
///
/// A plan that is kept was made for the table as it was then, and what is the cheapest way through ten rows reads a
/// hundred thousand for each request once they are there. Statistics tell of that only when somebody has analysed the
/// table. So where one index is the right way at any size, the planner is left no other, or takes that one among equals
/// because it is the newest. A dump restores indexes in another order; for the sake of such databases plans are made anew
/// when they are older than a second. They heed the size of the table, which needs no statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planner {
    /// Through the index that finds the keys, or has the whole order: planned once, for any values.
    Keyed,
    /// Through the index that has the order, or its first columns: rows that agree in these are sorted.
    Ordered,
    /// As the values, the size of the table and its statistics suggest.
    Free,
}

impl Planner {
    /// The settings; each names every one that another does, so that nothing of that one stays.
    const fn sql(self) -> &'static str {
        match self {
            Self::Keyed => {
                "discard plans; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                 set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off; \
                 set enable_incremental_sort = off; set jit = off"
            }
            Self::Ordered => {
                "discard plans; set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                 set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off; \
                 reset enable_incremental_sort; set jit = off"
            }
            Self::Free => {
                "discard plans; reset plan_cache_mode; reset enable_seqscan; reset enable_bitmapscan; \
                 reset enable_hashjoin; reset enable_mergejoin; reset enable_sort; reset enable_incremental_sort; reset jit"
            }
        }
    }
}

/// How much longer than the server's `statement_timeout` this side waits, so that the server's own, more precise
/// answer normally arrives first.
pub(super) const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// A cancel request is repeated after this long while the statement goes on: the first may have come before PostgreSQL had
/// read the statement.
const CANCEL_AGAIN: Duration = Duration::from_millis(100);

/// Longest that a plan is kept. Making one anew costs some 50 µs, and each session has about ten.
const PLANS_LAST: Duration = Duration::from_secs(1);

/// A connection and its prepared statements.
pub struct Session {
    client: Client,
    server: Server,
    driver: JoinHandle<()>,
    /// There are about ten, told apart by where their text is: comparing addresses costs less than hashing texts.
    statements: Mutex<Vec<(&'static str, Statement)>>,
    /// What its settings are, and since when no plan is older; `None` while that is being changed.
    planner: std::sync::Mutex<Option<(Planner, Instant)>>,
    deadline: Duration,
    /// Whether something was begun whose end has not been seen.
    busy: AtomicBool,
    /// Whether a transaction may be open although nothing runs.
    in_transaction: AtomicBool,
    /// Whether nobody may use it any more.
    given_up: AtomicBool,
    unreplicated: Unreplicated,
    term: Term,
}

impl Session {
    /// Sets up a fresh connection: deadlines on the server's side, UTC, plans through indexes, and what `settings` adds to
    /// that (nothing, or `; set ...`).
    ///
    /// # Errors
    /// When the connection is lost or the server refuses a setting.
    pub async fn new(
        connection: Connection,
        statement_timeout: Duration,
        settings: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let Connection { client, server, driver, unreplicated, term, .. } = connection;
        let ms = statement_timeout.as_millis();
        client
            .batch_execute(&format!(
                "set statement_timeout = {ms}; set idle_in_transaction_session_timeout = {ms}; set timezone = 'UTC'; \
                 set extra_float_digits = 1; {NOTICE_LOSS}; {}{}",
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
            given_up: AtomicBool::new(false),
            unreplicated,
            term,
        })
    }

    /// Whether the connection is gone, or must not be used again because it was given up, told that the server is ending, or
    /// leads to a server that was found to take no changes any more.
    pub fn is_broken(&self) -> bool {
        self.client.is_closed() || self.given_up.load(Ordering::Relaxed) || self.term.is_over()
    }

    /// Whether something was begun whose end has not been seen.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether a transaction may be open although nothing runs: work on [`Session::client_mut`] has failed, and what failed may
    /// have been its `commit` or `rollback`.
    pub fn may_be_in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Relaxed)
    }

    /// Closes the connection as soon as this is dropped, whatever runs on it.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// The driver's client, for what has no prepared form: transactions of keyed statements, and `COPY`. Sessions that
    /// run these run nothing else. Until [`Session::settle`] or [`Session::settled`] the session is busy.
    pub fn client_mut(&mut self) -> &mut Client {
        self.busy.store(true, Ordering::Relaxed);
        self.in_transaction.store(true, Ordering::Relaxed);
        &mut self.client
    }

    /// Says that everything begun on this session has ended.
    pub fn settled(&self) {
        self.busy.store(false, Ordering::Relaxed);
        self.in_transaction.store(false, Ordering::Relaxed);
    }

    /// Cancels what runs on this session, waits for its end, and rolls back a transaction that is open; whether the session
    /// may be used again.
    pub async fn recover(&self) -> bool {
        let ended = async {
            if self.is_busy() {
                self.cancel().await?;
            }
            // Nothing is on its way any more. A transaction whose commit or rollback was cancelled has failed, and is still open.
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
                self.settled();
                true
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot end what a session was used for");
                false
            }
        }
    }

    /// Cancels what runs on this session and waits for its end.
    async fn cancel(&self) -> Result<(), ConnectError> {
        let token = self.client.cancel_token();
        // Its answer comes behind that of the abandoned statement. A late cancel may hit this one instead.
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
    /// [`StoreError::Unavailable`] when the connection is lost or the deadline passes, otherwise what the server says.
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let work = pin!(async {
            let statement = self.statement(sql).await?;
            self.send(sql, &statement, params).await
        });
        self.settle(timeout(self.deadline, self.planned(Planner::Keyed, work)).await)
    }

    /// Runs a statement that changes data and collects its rows.
    ///
    /// # Errors
    /// As [`Session::query`], or [`StoreError::OutcomeUnknown`] when it was sent and its answer is missing.
    pub async fn write(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let attempt = self.attempt();
        let work = pin!(async {
            let statement = self.statement(sql).await?;
            attempt.sending();
            self.send(sql, &statement, params).await
        });
        attempt.judge(self.settle(timeout(self.deadline, self.planned(Planner::Keyed, work)).await))
    }

    /// Runs a statement without tables and parameters, of which no plan matters, and has so long for it.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn look(&self, sql: &'static str, patience: Duration) -> Result<Vec<Row>, StoreError> {
        self.busy.store(true, Ordering::Relaxed);
        let work = async { self.client.query(&self.statement(sql).await?, &[]).await };
        self.settle(timeout(patience, work).await)
    }

    /// A change that is about to be made on this connection.
    pub fn attempt(&self) -> Attempt {
        Attempt::new(&self.unreplicated)
    }

    /// Runs a statement and hands over each row as it arrives.
    ///
    /// # Errors
    /// As [`Session::query`], or what `each` says.
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
                        Some(recorded) => {
                            let sql = recorded.sent(sql.into());
                            self.client.query_typed_raw(&sql, typed(&statement, params)).await?
                        }
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
        let outcome = self.settle(timeout(self.deadline, self.planned(planner, work)).await);
        if refused {
            self.busy.store(true, Ordering::Relaxed); // the rest of the rows is on its way
        }
        outcome
    }

    /// Does work whose statements are to be planned in this way, and not long ago. What that takes is on its way in front
    /// of the work, in the same round trip.
    async fn planned<T, E>(&self, planner: Planner, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let current = || self.planner.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match *current() {
            Some((held, since)) if held == planner && since.elapsed() < PLANS_LAST => None,
            Some((held, _)) if held == planner => Some("discard plans"),
            _ => Some(planner.sql()),
        };
        let Some(change) = change else { return work.await };
        // Unknown until PostgreSQL has said that it is done: whoever is dropped meanwhile leaves it to the next.
        *current() = None;
        let (changed, done) = join(self.client.batch_execute(change), work).await;
        *current() = changed.is_ok().then(|| (planner, Instant::now()));
        done
    }

    /// Longest that work on this connection may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Judges work that had until the deadline: whether it has ended, and whether anybody may use this connection again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection is lost or the deadline passed, otherwise the work's.
    pub fn settle<T, E: Into<StoreError>>(&self, outcome: Result<Result<T, E>, Elapsed>) -> Result<T, StoreError> {
        let Ok(ended) = outcome else {
            return Err(StoreError::unavailable("query deadline passed")); // still busy
        };
        let was_in_transaction = self.may_be_in_transaction();
        self.settled();
        let error = match ended {
            Ok(value) => return Ok(value),
            Err(error) => error.into(),
        };
        self.in_transaction.store(was_in_transaction, Ordering::Relaxed);
        // A server that is ending says so before the socket closes; nobody else shall get this connection.
        if error.is_connection_lost() {
            self.give_up();
        }
        if error.is_read_only() {
            self.term.end();
        }
        Err(error)
    }

    /// Sends a statement that was prepared. One that is recorded says whose it is, which no prepared one can: it is sent anew,
    /// with the types that are known already, and planned for this once.
    async fn send(
        &self,
        sql: &'static str,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match Recorded::get() {
            None => self.client.query(statement, params).await,
            Some(recorded) => {
                let typed: Vec<_> = typed(statement, params).collect();
                // In a box, so that whoever is not recorded has no room for it.
                Box::pin(self.client.query_typed(&recorded.sent(sql.into()), &typed)).await
            }
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

/// Values with the types that a statement takes them in.
fn typed<'a>(statement: &Statement, params: Params<'a>) -> impl ExactSizeIterator<Item = (Param<'a>, Type)> {
    params.iter().copied().zip(statement.params().iter().cloned())
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver would wait for the end of what runs.
        if self.is_broken() {
            self.driver.abort();
        }
    }
}

/// While PostgreSQL works on a statement it looks this often whether anybody is still there, so that a killed server or a
/// closed connection leaves nothing running. PostgreSQL 13 has no such setting.
const NOTICE_LOSS: &str = "select set_config(name, '500ms', false) from pg_settings \
     where name = 'client_connection_check_interval'";
