//! What statements do, as metrics name it: each is timed from when it is sent until its end has been seen.

use std::sync::OnceLock;
use std::time::Instant;

use metrics::Histogram;

use super::error::StoreError;

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

    /// Does the work on a connection and records how long it took, also when it is dropped before its end.
    ///
    /// # Errors
    /// The work's.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let _timed = self.begin();
        work.await
    }

    /// Begins work that needs a connection for itself, such as a transaction.
    #[must_use = "the work ends when this is dropped"]
    pub fn begin(&self) -> Timed<'_> {
        Timed { operation: self, begun: Instant::now() }
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
#[derive(Debug)]
pub struct Timed<'a> {
    operation: &'a DbOperation,
    begun: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.operation.durations().record(self.begun.elapsed().as_secs_f64());
    }
}
