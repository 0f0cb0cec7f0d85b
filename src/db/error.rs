//! Errors of stored data, in terms of data: missing, conflicting, unavailable, unknown, broken.
//!
//! "Unavailable" guarantees that nothing was changed and the same attempt may be repeated. If that is not certain for a change,
//! the error is "outcome unknown" (`db::attempt` distinguishes the two).
//!
//! This module does not refer to HTTP (`http::problem` translates) and never matches on the text of a driver's message, only on
//! SQLSTATE codes and constraint names.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;
use tokio_postgres::error::{Severity, SqlState};

/// Reason if a table is missing because no start has run the migrations yet.
const NOT_MIGRATED: &str = "migrations have not run";

/// Reason if a list must be read again.
const REPLICA_FAILED: &str = "the replica failed";

/// Why a store operation failed.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// No row has the key.
    #[error("no such row")]
    Missing,
    /// The row's version does not match the condition of the change.
    #[error("the row has another version")]
    Stale,
    /// A constraint of the database rejected the row.
    #[error("refused by constraint {constraint}")]
    Conflict {
        /// The constraint's name, as the migrations declare it.
        constraint: String,
    },
    /// The database cannot answer now, and nothing was changed; the same request may succeed later.
    #[error("database unavailable: {reason}")]
    Unavailable {
        /// What was being waited for.
        reason: &'static str,
        /// The driver's error, for the log only.
        #[source]
        source: Option<Arc<tokio_postgres::Error>>,
    },
    /// Whether the change was made is unknown: it was sent, and no response came back, or an inconclusive one.
    #[error("outcome unknown: {reason}")]
    OutcomeUnknown {
        /// What was being waited for.
        reason: &'static str,
        /// The driver's error, for the log only.
        #[source]
        source: Option<Arc<tokio_postgres::Error>>,
    },
    /// A row has a value that its table should not allow: the row or its constraints were changed manually.
    #[error("column {column} holds a value that its rules do not allow")]
    Unreadable {
        /// The column.
        column: &'static str,
    },
    /// Not a failure: the caller of a read has as many rows as it has memory for ([`ended_early`]).
    #[error("no more rows are needed")]
    Enough,
    /// A bug in this program or in the schema.
    #[error("unexpected database error")]
    Internal(#[source] Arc<tokio_postgres::Error>),
}

impl StoreError {
    /// An unavailability without a driver error, such as a deadline.
    pub fn unavailable(reason: &'static str) -> Self {
        Self::Unavailable { reason, source: None }
    }

    /// An unknown outcome without a driver error, such as a deadline.
    pub fn outcome_unknown(reason: &'static str) -> Self {
        Self::OutcomeUnknown { reason, source: None }
    }

    /// What this failure means for a change that was sent: only a server error about the statement proves that it was rolled
    /// back. An error of a server that is shutting down concerns its connection, not the statement: a statement that waits for
    /// a standby has been committed.
    pub fn after_sending(self) -> Self {
        match self {
            Self::Unavailable { reason, source } if !source.as_deref().is_some_and(is_about_statement) => {
                Self::OutcomeUnknown { reason, source }
            }
            Self::Internal(error) if error.code().is_some() && !is_about_statement(&error) => {
                Self::OutcomeUnknown { reason: "the server crashed", source: Some(error) }
            }
            known => known,
        }
    }

    /// Whether a table is missing: the database responds, but its migrations have not run.
    pub fn is_missing_table(&self) -> bool {
        matches!(self, Self::Unavailable { reason: NOT_MIGRATED, .. })
    }

    /// A missing table that was found without querying it.
    pub fn missing_table() -> Self {
        Self::unavailable(NOT_MIGRATED)
    }

    /// A replica failed in the middle of a list.
    pub fn replica_failed() -> Self {
        Self::unavailable(REPLICA_FAILED)
    }

    /// Whether the same read may succeed at once: on another connection, or on the primary.
    pub fn is_worth_reading_again(&self) -> bool {
        self.is_connection_lost() || matches!(self, Self::Unavailable { reason: REPLICA_FAILED, .. })
    }

    /// Whether the server cancelled a statement because it took too long or a cancel request arrived.
    pub fn is_cancelled(&self) -> bool {
        self.unavailable_state() == Some(&SqlState::QUERY_CANCELED)
    }

    /// Whether no response arrived in time.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unavailable { source: None, .. })
    }

    /// Whether the server confirmed that it rolled back the whole statement, so that its rows can be tried individually.
    pub fn is_rolled_back(&self) -> bool {
        match self {
            Self::Conflict { .. } => true,
            Self::Internal(error) => is_about_statement(error),
            Self::Missing | Self::Stale | Self::Unreadable { .. } | Self::Enough | Self::OutcomeUnknown { .. } => false,
            Self::Unavailable { .. } => matches!(
                self.unavailable_state(),
                Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED)
            ),
        }
    }

    /// Whether the connection is lost: the socket was closed, or the server announced its shutdown.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Unavailable { source: Some(source), .. } => match source.code() {
                None => true,
                Some(state) => state.code().starts_with("08") || state.code().starts_with("57P"),
            },
            _ => false,
        }
    }

    /// Whether the server rejects writes: it is a standby, or read-only by configuration.
    pub fn is_read_only(&self) -> bool {
        self.unavailable_state() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Kind of database failure for metrics and spans: PostgreSQL's error code if there is one. A missing row is not a failure.
    pub fn kind(&self) -> Option<Cow<'static, str>> {
        let (source, kind) = match self {
            Self::Missing | Self::Stale | Self::Unreadable { .. } | Self::Enough => return None,
            Self::Conflict { .. } => (None, "constraint_violation"),
            Self::Unavailable { source, .. } => (source.as_deref(), "unavailable"),
            Self::OutcomeUnknown { source, .. } => (source.as_deref(), "outcome_unknown"),
            Self::Internal(source) => (Some(&**source), "_OTHER"),
        };
        let code = source.and_then(tokio_postgres::Error::code);
        Some(code.map_or(Cow::Borrowed(kind), |code| Cow::Owned(code.code().to_owned())))
    }

    fn unavailable_state(&self) -> Option<&SqlState> {
        match self {
            Self::Unavailable { source: Some(source), .. } => source.code(),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(reason) = unavailability(&error) {
            return Self::Unavailable { reason, source: Some(Arc::new(error)) };
        }
        match error.as_db_error().and_then(|db| db.constraint()) {
            Some(constraint) => Self::Conflict { constraint: constraint.to_owned() },
            None => Self::Internal(Arc::new(error)),
        }
    }
}

/// Whether a read was ended by its caller, with [`StoreError::Enough`], before its last row.
///
/// # Errors
/// The read's.
pub fn ended_early(read: Result<(), StoreError>) -> Result<bool, StoreError> {
    match read {
        Err(StoreError::Enough) => Ok(true),
        read => read.map(|()| false),
    }
}

/// Whether the error is about the statement, which was rolled back, and not about the end of the connection or the server.
pub(super) fn is_about_statement(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|answer| {
        let ends = matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        let code = answer.code().code();
        !ends && !code.starts_with("08") && !code.starts_with("57P")
    })
}

/// Whether the same attempt may succeed later, judged by the driver's error in the chain of causes.
pub fn is_transient(error: &(dyn StdError + 'static)) -> bool {
    match causes(error).find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()) {
        Some(error) => unavailability(error).is_some(),
        None => false,
    }
}

/// Whether no session can be opened, as opposed to a server that responds and is rejected, by its certificate or by an
/// SQLSTATE.
pub fn is_unreachable(error: &(dyn StdError + 'static)) -> bool {
    let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()) else {
        return false;
    };
    match error.code() {
        // Out of connections, or starting, stopping or crashed (57P01 to 57P03).
        Some(state) => ["08", "53", "57P"].iter().any(|class| state.code().starts_with(class)),
        // rustls reports a rejected certificate inside an I/O error.
        None => {
            let refused =
                |io: &std::io::Error| io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some();
            error.is_closed() || causes(error).filter_map(|cause| cause.downcast_ref()).any(|io| !refused(io))
        }
    }
}

/// Why a driver's error is temporary; `None` if it is not.
fn unavailability(error: &tokio_postgres::Error) -> Option<&'static str> {
    let Some(state) = error.code() else {
        // Without an SQLSTATE the error is not from the server: the connection failed, or a value did not convert.
        let lost = error.is_closed() || causes(error).any(<dyn StdError>::is::<std::io::Error>);
        return lost.then_some("connection lost");
    };
    match *state {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => return Some("concurrent change"),
        // Before the first migration has run there is no table: temporary, and not a bug.
        SqlState::UNDEFINED_TABLE => return Some(NOT_MIGRATED),
        SqlState::READ_ONLY_SQL_TRANSACTION => return Some("server is read-only"),
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => return Some("transaction ended by the server"),
        _ => {}
    }
    // Classes: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
    match state.code().get(..2) {
        Some("08") => Some("connection lost"),
        Some("53") => Some("server out of resources"),
        Some("57") => Some("query cancelled or server stopping"),
        _ => None,
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
