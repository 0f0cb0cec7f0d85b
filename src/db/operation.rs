//! What statements do, as metrics and spans name it: each is timed from when it is sent until its end has been seen.

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

/// What is done, and with rows of what.
#[derive(Debug)]
pub struct DbOperation {
    /// Such as `get`.
    pub name: &'static str,
    /// Such as `passengers`.
    pub collection: &'static str,
    /// Looked up once: that costs more than recording.
    durations: OnceLock<Histogram>,
}

impl DbOperation {
    /// An operation on a collection.
    pub const fn new(name: &'static str, collection: &'static str) -> Self {
        Self { name, collection, durations: OnceLock::new() }
    }

    /// Does the work on a connection and records how long it took, also when it is dropped before its end. The work stays where it
    /// is pinned: each function that took it by value would have room for it twice, and it is copied with whoever calls it.
    ///
    /// # Errors
    /// The work's.
    pub async fn run<T>(&self, work: Pin<&mut impl Future<Output = Result<T, StoreError>>>) -> Result<T, StoreError> {
        let mut timed = self.begin();
        let outcome = timed.around(work).await;
        timed.judge(&outcome);
        outcome
    }

    /// Begins work that needs a connection for itself, such as a transaction.
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

/// An operation under way; it ends when this is dropped.
pub struct Timed<'a> {
    operation: &'a DbOperation,
    begun: Instant,
    recorded: Option<Box<Recorded>>,
}

impl Timed<'_> {
    /// Does work whose statements belong to it.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.recorded {
            None => work.await,
            // In a box, so that whoever is not recorded pays nothing for those who are.
            Some(recorded) => Box::pin(recorded.statement.clone().scope(work)).await,
        }
    }

    /// Takes down how it has ended; what is not judged was given up.
    pub fn judge<T>(&mut self, outcome: &Result<T, StoreError>) {
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

/// An operation of which a span is recorded, by the semantic conventions of database clients.
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
        let statement = Statement::new(context);
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

/// The length of PostgreSQL's error codes; no other kind of failure has it.
const SQLSTATE_BYTES: usize = 5;
