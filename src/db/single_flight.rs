//! Coalesces identical concurrent reads.
//!
//! While a result is being read, further calls for the same key wait; the next read serves them all and covers what each of
//! them requires. There is no cache: a result is returned only to calls made before its read began. This module does not depend
//! on SQL, HTTP or any resource.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::join_all;
use metrics::{Counter, Histogram};
use tokio::sync::oneshot;

use super::batch::{BATCH_REFUSED, BATCH_SIZE, QUEUE};
use super::error::StoreError;
use super::wait_time::Waiting;
use crate::trace::current::Current;

/// Reads in progress, by key; at most [`QUEUE`] callers wait for the same key. Cheap to clone; clones share them.
pub struct SingleFlight<K, N, O> {
    under_way: Arc<Mutex<UnderWay<K, N, O>>>,
    readers: Histogram,
    refused: Counter,
}

/// The callers waiting for the next read of a key that is being read.
type UnderWay<K, N, O> = HashMap<K, Vec<Reader<N, O>>>;

struct Reader<N, O> {
    /// What the result must cover.
    need: N,
    answer: oneshot::Sender<Result<O, StoreError>>,
    /// The trace that the call belongs to, if it is sampled.
    trace: Option<Current>,
}

impl<K, N, O> Clone for SingleFlight<K, N, O> {
    fn clone(&self) -> Self {
        let Self { under_way, readers, refused } = self;
        Self { under_way: under_way.clone(), readers: readers.clone(), refused: refused.clone() }
    }
}

impl<K, N, O> SingleFlight<K, N, O>
where
    K: Clone + Eq + Hash + Send + 'static,
    N: Copy + Ord + Default + Send + Sync + 'static,
    O: Clone + Send + 'static,
{
    /// Creates a coalescer whose metrics have the label `name`.
    pub fn new(name: &'static str) -> Self {
        Self {
            under_way: Arc::default(),
            readers: metrics::histogram!(BATCH_SIZE, "batch" => name),
            refused: metrics::counter!(BATCH_REFUSED, "batch" => name),
        }
    }

    /// Returns a result whose read began after this call. `read` runs for this caller and for all that call with the same key
    /// meanwhile; its argument is the greatest requirement of those callers.
    ///
    /// # Errors
    /// The read's, or [`StoreError::Unavailable`] if too many callers wait or the read panicked.
    pub async fn get<F>(&self, key: K, need: N, read: impl Fn(N) -> F + Send + Sync + 'static) -> Result<O, StoreError>
    where
        F: Future<Output = Result<O, StoreError>> + Send + 'static,
    {
        let _waiting = Waiting::begin();
        let (sender, answer) = oneshot::channel();
        let reader = Reader { need, answer: sender, trace: Current::get() };
        let first = match self.lock().entry(key.clone()) {
            Entry::Occupied(waiting) if waiting.get().len() >= QUEUE => {
                self.refused.increment(1);
                return Err(StoreError::unavailable("too many requests are waiting"));
            }
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(reader);
                None
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                Some(reader)
            }
        };
        if let Some(reader) = first {
            // A separate task: if this client disconnects, the read must still complete for the others.
            tokio::spawn(self.clone().serve(key, reader, read));
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::unavailable("the read panicked")))
    }

    /// Whether any read is in progress.
    pub fn is_busy(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay<K, N, O>> {
        // No code that can panic runs under the lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until no caller is waiting.
    async fn serve<F>(self, key: K, first: Reader<N, O>, read: impl Fn(N) -> F + Send + Sync)
    where
        F: Future<Output = Result<O, StoreError>> + Send + 'static,
    {
        let mut readers = vec![first];
        loop {
            #[expect(clippy::cast_precision_loss, reason = "a service has few clients")]
            self.readers.record(readers.len() as f64);
            // A panic must not end this task while callers are waiting.
            let traces: Vec<Current> = readers.iter().filter_map(|reader| reader.trace.clone()).collect();
            let need = readers.iter().map(|reader| reader.need).max().unwrap_or_default();
            let reading =
                AssertUnwindSafe(async { Current::joined_scope(&traces, read(need).boxed()).await }).catch_unwind();
            let outcome = tokio::select! {
                biased; // deterministic for the same order of events
                outcome = reading => outcome.unwrap_or_else(|_| Err(StoreError::unavailable("the read panicked"))),
                // All clients have disconnected.
                _ = join_all(readers.iter_mut().map(|reader| reader.answer.closed())) => {
                    Err(StoreError::unavailable("cancelled"))
                }
            };
            for reader in readers {
                let _ = reader.answer.send(outcome.clone()); // the client may have disconnected
            }
            let mut under_way = self.lock();
            let waiting = under_way.get_mut(&key).expect("only the task that reads a key removes it");
            // A client that has disconnected needs no response.
            waiting.retain(|reader| !reader.answer.is_closed());
            if waiting.is_empty() {
                under_way.remove(&key);
                return;
            }
            readers = std::mem::take(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    /// Numbers its reads; each reports its start and then waits for a permit.
    #[derive(Clone)]
    struct Gated {
        single_flight: SingleFlight<&'static str, u32, usize>,
        reads: Arc<AtomicUsize>,
        begun: mpsc::UnboundedSender<&'static str>,
        permits: Arc<Semaphore>,
        needs: Arc<Mutex<Vec<u32>>>,
    }

    impl Gated {
        fn new() -> (Self, mpsc::UnboundedReceiver<&'static str>) {
            let (begun, seen) = mpsc::unbounded_channel();
            let permits = Arc::new(Semaphore::new(0));
            let single_flight = SingleFlight::new("test");
            (Self { single_flight, reads: Arc::default(), begun, permits, needs: Arc::default() }, seen)
        }

        fn get(&self, key: &'static str) -> tokio::task::JoinHandle<Result<usize, StoreError>> {
            self.get_needing(key, 0)
        }

        fn get_needing(&self, key: &'static str, need: u32) -> tokio::task::JoinHandle<Result<usize, StoreError>> {
            let gated = self.clone();
            tokio::spawn(async move {
                let inner = gated.clone();
                let read = move |greatest| {
                    let inner = inner.clone();
                    async move {
                        inner.needs.lock().expect("no panic").push(greatest);
                        let number = inner.reads.fetch_add(1, Ordering::SeqCst);
                        inner.begun.send(key).expect("the test listens");
                        inner.permits.acquire().await.expect("open").forget();
                        assert!(key != "panic once" || number > 0, "intended panic");
                        Ok(number)
                    }
                };
                gated.single_flight.get(key, need, read).await
            })
        }

        async fn until_waiting(&self, key: &'static str, count: usize) {
            while self.single_flight.lock().get(key).map_or(0, Vec::len) < count {
                tokio::task::yield_now().await;
            }
        }

        async fn until_idle(&self) {
            while self.single_flight.is_busy() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn calls_during_a_read_share_the_next_one() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get("a");
        assert_eq!(begun.recv().await, Some("a"));
        let others: Vec<_> = (0..3).map(|_| gated.get("a")).collect();
        gated.until_waiting("a", 3).await;
        let different = gated.get("b");
        assert_eq!(begun.recv().await, Some("b"), "another key does not wait");
        gated.permits.add_permits(3);
        assert_eq!(first.await.expect("no panic").expect("an answer"), 0);
        assert_eq!(different.await.expect("no panic").expect("an answer"), 1);
        for answer in join_all(others).await {
            assert_eq!(answer.expect("no panic").expect("an answer"), 2, "read after the call, and once");
        }
        assert_eq!(gated.reads.load(Ordering::SeqCst), 3);
        gated.until_idle().await;
    }

    #[tokio::test]
    async fn a_read_covers_what_each_of_its_callers_requires() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get_needing("a", 5);
        begun.recv().await;
        let others: Vec<_> = [2, 9, 0].into_iter().map(|need| gated.get_needing("a", need)).collect();
        gated.until_waiting("a", 3).await;
        gated.permits.add_permits(2);
        for answer in join_all(others.into_iter().chain([first])).await {
            answer.expect("no panic").expect("an answer");
        }
        assert_eq!(*gated.needs.lock().expect("no panic"), [5, 9]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get("a");
        begun.recv().await;
        let others: Vec<_> = (0..QUEUE).map(|_| gated.get("a")).collect();
        gated.until_waiting("a", QUEUE).await;
        let refused = gated.get("a").await.expect("no panic");
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        gated.permits.add_permits(2);
        for answer in join_all(others.into_iter().chain([first])).await {
            answer.expect("no panic").expect("an answer");
        }
    }

    #[tokio::test]
    async fn a_client_that_disconnects_does_not_cancel_the_read_of_another() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get("a");
        begun.recv().await;
        let second = gated.get("a");
        gated.until_waiting("a", 1).await;
        first.abort();
        begun.recv().await;
        gated.permits.add_permits(1);
        assert_eq!(second.await.expect("no panic").expect("an answer"), 1);
    }

    #[tokio::test]
    async fn a_read_is_cancelled_when_all_its_clients_have_disconnected() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get("a");
        begun.recv().await;
        let gone = gated.get("a");
        gated.until_waiting("a", 1).await;
        gone.abort();
        assert!(gone.await.expect_err("aborted").is_cancelled());
        first.abort();
        gated.until_idle().await; // without a permit: the read was dropped
        assert_eq!(gated.reads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_the_callers_of_that_read_and_not_for_the_next() {
        let (gated, mut begun) = Gated::new();
        let first = gated.get("panic once");
        begun.recv().await;
        let second = gated.get("panic once");
        gated.until_waiting("panic once", 1).await;
        gated.permits.add_permits(2);
        assert!(first.await.expect("caught").is_err());
        assert_eq!(second.await.expect("no panic").expect("an answer"), 1);
        gated.until_idle().await;
    }
}
