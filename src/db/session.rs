//! One PostgreSQL connection together with the statements prepared on it.
//!
//! A statement is prepared the first time a connection runs it and kept until the connection closes, so a
//! request costs one round trip. Every query has a deadline on this side besides the server's own
//! `statement_timeout`: a server that stopped answering cannot hold a request.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::error::StoreError;
use super::pool::PoolKind;

/// The value of a statement's parameter.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// Values for a statement's parameters, in order.
pub type Params<'a> = &'a [Param<'a>];

/// The same with the type that each parameter has in the statement.
pub type TypedParams<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// A statement with the values of its parameters.
#[derive(Clone, Copy)]
pub enum Query<'a> {
    /// Prepared the first time, and kept.
    Prepared(&'static str, Params<'a>),
    /// Put together for one request: one round trip, and nothing is kept of it, because there are more of its kind than a
    /// connection could hold.
    Once(&'a str, TypedParams<'a>),
}

/// How much longer than the server's `statement_timeout` this side waits, so that the server's own, more precise
/// answer normally arrives first.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// A connection and its prepared statements.
pub struct Session {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    deadline: Duration,
    abandoned: AtomicBool,
}

impl Session {
    /// Sets up a fresh connection: deadlines on the server's side, UTC, and readable intervals.
    ///
    /// # Errors
    /// When the connection is lost or the server refuses a setting.
    pub async fn new(
        client: Client,
        kind: PoolKind,
        statement_timeout: Duration,
    ) -> Result<Self, tokio_postgres::Error> {
        let ms = statement_timeout.as_millis();
        client
            .batch_execute(&format!(
                "set statement_timeout = {ms}; set idle_in_transaction_session_timeout = {ms}; set timezone = 'UTC'{}",
                planner_settings(kind)
            ))
            .await?;
        Ok(Self {
            client,
            statements: Mutex::new(HashMap::new()),
            deadline: statement_timeout + DEADLINE_GRACE,
            abandoned: AtomicBool::new(false),
        })
    }

    /// Whether the connection is gone, or must not be used again because a query on it was given up or told that the server is ending.
    pub fn is_broken(&self) -> bool {
        self.client.is_closed() || self.abandoned.load(Ordering::Relaxed)
    }

    /// The driver's client, for what has no prepared form: transactions and `COPY`.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs a statement and collects its rows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection is lost or the deadline passes, otherwise what the server says.
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let work = async {
            let statement = self.statement(sql).await?;
            self.client.query(&statement, params).await
        };
        self.settle(tokio::time::timeout(self.deadline, work).await)
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
        let work = async {
            let rows = match query {
                Query::Prepared(sql, params) => {
                    let statement = self.statement(sql).await?;
                    self.client.query_raw(&statement, params.iter().copied()).await?
                }
                Query::Once(sql, params) => {
                    let params = params.iter().map(|(value, of)| (*value, of.clone()));
                    self.client.query_typed_raw(sql, params).await?
                }
            };
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                each(row)?;
            }
            Ok::<_, StoreError>(())
        };
        self.settle(tokio::time::timeout(self.deadline, work).await)
    }

    /// Longest that work on this connection may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Judges work that had until the deadline, and with it whether anybody may use this connection again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection is lost or the deadline passed, otherwise the work's.
    pub fn settle<T, E: Into<StoreError>>(&self, outcome: Result<Result<T, E>, Elapsed>) -> Result<T, StoreError> {
        let error = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.into(),
            Err(_) => {
                self.abandoned.store(true, Ordering::Relaxed);
                return Err(StoreError::unavailable("query deadline passed"));
            }
        };
        // A server that is ending says so before the socket closes; nobody else shall get this connection.
        if error.is_connection_lost() {
            self.abandoned.store(true, Ordering::Relaxed);
        }
        Err(error)
    }

    async fn statement(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let mut statements = self.statements.lock().await;
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// What the planner is told on sessions of this kind. A list cannot take several processors to itself: as many sessions
/// read lists as processors may be busy with them.
fn planner_settings(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Lists => "; set max_parallel_workers_per_gather = 0",
        PoolKind::Keys | PoolKind::Probe => "",
    }
}
