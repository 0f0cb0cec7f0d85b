//! How long a request has waited for the database: in queues, for a connection and for responses.
//!
//! A waiting task holds a [`Waiting`]; its time is added to the current request. Concurrent waits are each counted.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

tokio::task_local! {
    static SPENT: Cell<Duration>;
}

/// Runs work and returns how long it waited for the database.
pub fn counted<F: Future>(work: F) -> impl Future<Output = (F::Output, Duration)> {
    SPENT.scope(Cell::new(Duration::ZERO), work.map(|outcome| (outcome, SPENT.with(Cell::get))))
}

/// A wait for the database; it ends when this is dropped.
#[derive(Debug)]
pub struct Waiting(Instant);

impl Waiting {
    /// Begins to wait.
    #[must_use = "the wait ends when this is dropped"]
    pub fn begin() -> Self {
        Self(Instant::now())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Outside of a request, waits are not counted.
        let _ = SPENT.try_with(|spent| spent.set(spent.get() + self.0.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_are_counted_only_for_the_request_that_waits() {
        let (outcome, spent) = counted(async {
            let elsewhere = tokio::spawn(async { drop(Waiting::begin()) });
            elsewhere.await.expect("no panic");
            7
        })
        .await;
        assert_eq!((outcome, spent), (7, Duration::ZERO));
        let ((), spent) = counted(async {
            let _waiting = Waiting::begin();
            tokio::task::yield_now().await;
        })
        .await;
        assert!(spent > Duration::ZERO);
        drop(Waiting::begin()); // not counted outside of a request
    }
}
