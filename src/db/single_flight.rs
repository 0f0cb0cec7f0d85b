//! Lets requests for the same answer share one reading of it.
//!
//! While an answer is being read, others that ask for the same wait; the next reading answers them all, and holds what each of
//! them needs of it. There is no cache: an answer is only ever given to those who asked before it began to be read. This module knows nothing of SQL, HTTP or
//! passengers.

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

/// Readings under way, by what is asked for; at most [`QUEUE`] wait for the same one. Cheap to clone; clones share them.
pub struct SingleFlight<K, N, O> {
    under_way: Arc<Mutex<UnderWay<K, N, O>>>,
    readers: Histogram,
    refused: Counter,
}

/// Those who wait for the next reading of something that is being read.
type UnderWay<K, N, O> = HashMap<K, Vec<Reader<N, O>>>;

struct Reader<N, O> {
    /// What the answer must hold.
    need: N,
    answer: oneshot::Sender<Result<O, StoreError>>,
    /// What it is a part of, if that is recorded.
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
    /// Readings whose metrics carry `name`.
    pub fn new(name: &'static str) -> Self {
        Self {
            under_way: Arc::default(),
            readers: metrics::histogram!(BATCH_SIZE, "batch" => name),
            refused: metrics::counter!(BATCH_REFUSED, "batch" => name),
        }
    }

    /// Waits for an answer whose reading began after this call; `read` reads it, for this caller and for whoever asks
    /// for the same meanwhile, and is told the greatest need of those it reads for.
    ///
    /// # Errors
    /// The reading's, or [`StoreError::Unavailable`] when too many wait or the reading panicked.
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
            Entry::Vacant(nobody) => {
                nobody.insert(Vec::new());
                Some(reader)
            }
        };
        if let Some(reader) = first {
            // A task of its own: a client that goes away must not take the answer of others with it.
            tokio::spawn(self.clone().serve(key, reader, read));
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::unavailable("the reading was given up")))
    }

    /// Whether anything is being read.
    pub fn is_busy(&self) -> bool {
        !self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay<K, N, O>> {
        // No code that can panic runs under the lock.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nobody waits.
    async fn serve<F>(self, key: K, first: Reader<N, O>, read: impl Fn(N) -> F + Send + Sync)
    where
        F: Future<Output = Result<O, StoreError>> + Send + 'static,
    {
        let mut readers = vec![first];
        loop {
            #[expect(clippy::cast_precision_loss, reason = "a service has few clients")]
            self.readers.record(readers.len() as f64);
            // A panic must not leave those who wait without anybody to read for them.
            let traces: Vec<Current> = readers.iter().filter_map(|reader| reader.trace.clone()).collect();
            let need = readers.iter().map(|reader| reader.need).max().unwrap_or_default();
            let reading =
                AssertUnwindSafe(async { Current::joined_scope(&traces, read(need).boxed()).await }).catch_unwind();
            let outcome = tokio::select! {
                biased; // the same outcome for the same order of events
                outcome = reading => outcome.unwrap_or_else(|_| Err(StoreError::unavailable("the reading was given up"))),
                // Nobody is left to read for.
                _ = join_all(readers.iter_mut().map(|reader| reader.answer.closed())) => Err(StoreError::unavailable("left")),
            };
            for reader in readers {
                let _ = reader.answer.send(outcome.clone()); // the client may have gone
            }
            let mut under_way = self.lock();
            let waiting = under_way.get_mut(&key).expect("only the task that reads for a key takes it out");
            // A client that has gone needs no answer.
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

    /// Numbers its readings; each reports itself and then waits for a permit.
    #[derive(Clone)]
    struct Gated {
        sharing: SingleFlight<&'static str, u32, usize>,
        readings: Arc<AtomicUsize>,
        begun: mpsc::UnboundedSender<&'static str>,
        permits: Arc<Semaphore>,
        needs: Arc<Mutex<Vec<u32>>>,
    }

    impl Gated {
        fn new() -> (Self, mpsc::UnboundedReceiver<&'static str>) {
            let (begun, seen) = mpsc::unbounded_channel();
            let permits = Arc::new(Semaphore::new(0));
            let sharing = SingleFlight::new("test");
            (Self { sharing, readings: Arc::default(), begun, permits, needs: Arc::default() }, seen)
        }

        fn ask(&self, key: &'static str) -> tokio::task::JoinHandle<Result<usize, StoreError>> {
            self.ask_needing(key, 0)
        }

        fn ask_needing(&self, key: &'static str, need: u32) -> tokio::task::JoinHandle<Result<usize, StoreError>> {
            let gated = self.clone();
            tokio::spawn(async move {
                let inner = gated.clone();
                let read = move |greatest| {
                    let inner = inner.clone();
                    async move {
                        inner.needs.lock().expect("no panic").push(greatest);
                        let number = inner.readings.fetch_add(1, Ordering::SeqCst);
                        inner.begun.send(key).expect("the test listens");
                        inner.permits.acquire().await.expect("open").forget();
                        assert!(key != "panic once" || number > 0, "on purpose");
                        Ok(number)
                    }
                };
                gated.sharing.get(key, need, read).await
            })
        }

        async fn until_waiting(&self, key: &'static str, count: usize) {
            while self.sharing.lock().get(key).map_or(0, Vec::len) < count {
                tokio::task::yield_now().await;
            }
        }

        async fn until_idle(&self) {
            while self.sharing.is_busy() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn whoever_asks_during_a_reading_shares_the_next_one() {
        let (gated, mut begun) = Gated::new();
        let first = gated.ask("a");
        assert_eq!(begun.recv().await, Some("a"));
        let others: Vec<_> = (0..3).map(|_| gated.ask("a")).collect();
        gated.until_waiting("a", 3).await;
        let different = gated.ask("b");
        assert_eq!(begun.recv().await, Some("b"), "another answer waits for nobody");
        gated.permits.add_permits(3);
        assert_eq!(first.await.expect("no panic").expect("an answer"), 0);
        assert_eq!(different.await.expect("no panic").expect("an answer"), 1);
        for answer in join_all(others).await {
            assert_eq!(answer.expect("no panic").expect("an answer"), 2, "read after it was asked for, and once");
        }
        assert_eq!(gated.readings.load(Ordering::SeqCst), 3);
        gated.until_idle().await;
    }

    #[tokio::test]
    async fn a_reading_holds_what_each_of_those_it_answers_needs() {
        let (gated, mut begun) = Gated::new();
        let first = gated.ask_needing("a", 5);
        begun.recv().await;
        let others: Vec<_> = [2, 9, 0].into_iter().map(|need| gated.ask_needing("a", need)).collect();
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
        let first = gated.ask("a");
        begun.recv().await;
        let others: Vec<_> = (0..QUEUE).map(|_| gated.ask("a")).collect();
        gated.until_waiting("a", QUEUE).await;
        let refused = gated.ask("a").await.expect("no panic");
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        gated.permits.add_permits(2);
        for answer in join_all(others.into_iter().chain([first])).await {
            answer.expect("no panic").expect("an answer");
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_takes_nobodys_answer_along() {
        let (gated, mut begun) = Gated::new();
        let first = gated.ask("a");
        begun.recv().await;
        let second = gated.ask("a");
        gated.until_waiting("a", 1).await;
        first.abort();
        begun.recv().await;
        gated.permits.add_permits(1);
        assert_eq!(second.await.expect("no panic").expect("an answer"), 1);
    }

    #[tokio::test]
    async fn nothing_is_read_for_clients_that_have_gone() {
        let (gated, mut begun) = Gated::new();
        let first = gated.ask("a");
        begun.recv().await;
        let gone = gated.ask("a");
        gated.until_waiting("a", 1).await;
        gone.abort();
        assert!(gone.await.expect_err("aborted").is_cancelled());
        first.abort();
        gated.until_idle().await; // without a permit: the reading was dropped
        assert_eq!(gated.readings.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_those_it_was_read_for_and_none_for_the_next() {
        let (gated, mut begun) = Gated::new();
        let first = gated.ask("panic once");
        begun.recv().await;
        let second = gated.ask("panic once");
        gated.until_waiting("panic once", 1).await;
        gated.permits.add_permits(2);
        assert!(first.await.expect("caught").is_err());
        assert_eq!(second.await.expect("no panic").expect("an answer"), 1);
        gated.until_idle().await;
    }
}
