//! How long a request has waited for the database: for its turn, for a connection and for answers.
//!
//! Whoever waits holds a [`Waiting`]; the time is added to the request that is being worked on. Waits side by side are
//! each counted.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

tokio::task_local! {
    static SPENT: Cell<Duration>;
}

/// Does some work and says how long of it was spent waiting for the database.
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
        // Outside of a request nobody counts.
        let _ = SPENT.try_with(|spent| spent.set(spent.get() + self.0.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_are_counted_for_the_request_that_waits_and_for_no_other() {
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
        drop(Waiting::begin()); // nobody counts, nobody minds
    }
}
