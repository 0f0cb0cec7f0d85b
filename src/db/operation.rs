//! Operations on the database, as metrics and spans name them: each is timed from when its statement is sent until it has
//! ended.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use metrics::Histogram;

use super::error::StoreError;
use crate::trace::context::SpanContext;
use crate::trace::current::{Current, Statement};
use crate::trace::span::{Kind, Span};

/// Name of the histogram of statements (OpenTelemetry semantic conventions, `db.client.operation.duration`).
pub const OPERATION_DURATION: &str = "db_client_operation_duration_seconds";

/// An operation and the collection that it works on.
#[derive(Debug)]
pub struct DbOperation {
    /// For example `get`.
    pub name: &'static str,
    /// For example `passengers`.
    pub collection: &'static str,
    /// Looked up once: the lookup costs more than recording.
    durations: OnceLock<Histogram>,
}

impl DbOperation {
    /// An operation on a collection.
    pub const fn new(name: &'static str, collection: &'static str) -> Self {
        Self { name, collection, durations: OnceLock::new() }
    }

    /// Runs work on a connection and records how long it took, even if it is dropped before it ends. The work is passed pinned:
    /// each function that took it by value would reserve space for it twice, and it would be copied along with its caller.
    ///
    /// # Errors
    /// The work's.
    pub async fn run<T>(&self, work: Pin<&mut impl Future<Output = Result<T, StoreError>>>) -> Result<T, StoreError> {
        let mut timed = self.begin();
        let outcome = timed.around(work).await;
        timed.record_outcome(&outcome);
        outcome
    }

    /// Begins an operation that requires its own connection, such as a transaction.
    #[must_use = "the work ends when this is dropped"]
    pub fn begin(&self) -> Timed<'_> {
        let recorded = Current::get().map(|current| Box::new(Recorded::begin(current)));
        Timed { operation: self, begun: Instant::now(), recorded }
    }

    fn durations(&self) -> &Histogram {
        self.durations.get_or_init(|| {
            metrics::histogram!(
                OPERATION_DURATION,
                "db_operation_name" => self.name,
                "db_collection_name" => self.collection,
            )
        })
    }
}

/// A running operation; it ends when this is dropped.
pub struct Timed<'a> {
    operation: &'a DbOperation,
    begun: Instant,
    recorded: Option<Box<Recorded>>,
}

impl Timed<'_> {
    /// Runs work whose statements belong to the operation.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.recorded {
            None => work.await,
            // Boxed, so that a future without tracing does not reserve space for it.
            Some(recorded) => Box::pin(recorded.statement.clone().scope(work)).await,
        }
    }

    /// Records the outcome; without this call, the operation counts as cancelled.
    pub fn record_outcome<T>(&mut self, outcome: &Result<T, StoreError>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.failure = outcome.as_ref().err().and_then(StoreError::kind);
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.operation.durations().record(self.begun.elapsed().as_secs_f64());
        if let Some(recorded) = self.recorded.take() {
            recorded.end(self.operation);
        }
    }
}

/// The span of a traced operation, following the semantic conventions for database clients.
struct Recorded {
    current: Current,
    context: SpanContext,
    statement: Arc<Statement>,
    begun: SystemTime,
    /// The kind of failure.
    failure: Option<Cow<'static, str>>,
}

impl Recorded {
    fn begin(current: Current) -> Self {
        let context = SpanContext::sampled_in(current.span().trace);
        let statement = Statement::new(context, current.tracer().may_plan_again());
        Self { current, context, statement, begun: SystemTime::now(), failure: Some(Cow::Borrowed("cancelled")) }
    }

    fn end(self, operation: &DbOperation) {
        let Self { current, context, statement, begun, failure } = self;
        let DbOperation { name, collection, .. } = operation;
        let mut attributes = Vec::with_capacity(10);
        attributes.extend_from_slice(current.tracer().database());
        attributes.push(("db.operation.name", (*name).into()));
        attributes.push(("db.collection.name", (*collection).into()));
        attributes.extend(statement.text().map(|text| ("db.query.text", text.into())));
        let is_failed = failure.is_some();
        if let Some(failure) = failure {
            if failure.len() == SQLSTATE_BYTES {
                attributes.push(("db.response.status_code", failure.clone().into()));
            }
            attributes.push(("error.type", failure.into()));
        }
        let links = current.links().to_vec();
        current.tracer().end(Span {
            context,
            parent: Some(current.span().span),
            state: String::new(),
            kind: Kind::Client,
            name: Cow::Owned([name, " ", collection].concat()),
            begun,
            ended: SystemTime::now(),
            attributes,
            links,
            is_failed,
        });
    }
}

/// Length of PostgreSQL's error codes; no other kind of failure has this length.
const SQLSTATE_BYTES: usize = 5;
