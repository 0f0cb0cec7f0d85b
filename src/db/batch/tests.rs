//! Batches start, wait, stall and fail as the module specifies.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, mpsc};

use super::*;

const NAME: BatchName = BatchName { resource: "test", batch: "test" };

const LIMITS: BatchLimits =
    BatchLimits { size: 4, eager: 1, worth: 4, in_flight: 2, queue: 8, wait: Duration::from_secs(60), changes: false };

type Gated = (Batcher<u32, u32>, mpsc::UnboundedReceiver<Vec<u32>>, Arc<Semaphore>);

/// Doubles numbers; each batch reports its start and then waits for a permit.
fn gated() -> Gated {
    gated_within(LIMITS)
}

fn gated_within(limits: BatchLimits) -> Gated {
    let (started, batches) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let permits = gate.clone();
    let work = move |items: Vec<u32>| {
        let (started, gate) = (started.clone(), gate.clone());
        async move {
            started.send(items.clone()).expect("the test listens");
            gate.acquire().await.expect("open").forget();
            items.into_iter().map(|item| Ok(item * 2)).collect()
        }
        .boxed()
    };
    (Batcher::new(NAME, limits, Box::new(work)), batches, permits)
}

fn submit(batcher: &Batcher<u32, u32>, item: u32) -> tokio::task::JoinHandle<Result<u32, StoreError>> {
    let batcher = batcher.clone();
    tokio::spawn(async move { batcher.submit(item).await })
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_a_batch_is_answered_by_the_next_one() {
    let (batcher, mut batches, permits) = gated();
    let first = submit(&batcher, 1);
    assert_eq!(batches.recv().await, Some(vec![1]), "a single item starts at once");
    let second = submit(&batcher, 2);
    let third = submit(&batcher, 2);
    while batcher.shared.lock().waiting.len() < 2 {
        tokio::task::yield_now().await;
    }
    permits.add_permits(2);
    assert_eq!(batches.recv().await, Some(vec![2, 2]), "equal items are both answered");
    for (task, expected) in [(first, 2), (second, 4), (third, 4)] {
        assert_eq!(task.await.expect("no panic").expect("an answer"), expected);
    }
    assert_eq!(batcher.shared.lock().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_waiting_starts_a_further_one_up_to_the_bound_and_a_full_queue_refuses() {
    let (batcher, mut batches, permits) = gated();
    let mut tasks = vec![submit(&batcher, 0)];
    assert_eq!(batches.recv().await, Some(vec![0]));
    tasks.extend((1..=4).map(|item| submit(&batcher, item)));
    assert_eq!(batches.recv().await, Some(vec![1, 2, 3, 4]), "a second batch is in flight");
    tasks.extend((5..=12).map(|item| submit(&batcher, item)));
    while batcher.shared.lock().waiting.len() < LIMITS.queue {
        tokio::task::yield_now().await;
    }
    assert_eq!(batcher.shared.lock().in_flight, LIMITS.in_flight);
    let refused = batcher.submit(13).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    permits.add_permits(100);
    for (item, task) in (0_u32..).zip(tasks) {
        assert_eq!(task.await.expect("no panic").expect("an answer"), item * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn enough_waiting_items_start_a_few_batches_and_no_more() {
    let (batcher, mut batches, permits) = gated_within(BatchLimits { eager: 3, worth: 2, in_flight: 4, ..LIMITS });
    let mut tasks = vec![submit(&batcher, 0)];
    assert_eq!(batches.recv().await, Some(vec![0]));
    tasks.extend((1..=2).map(|item| submit(&batcher, item)));
    assert_eq!(batches.recv().await, Some(vec![1, 2]));
    tasks.extend((3..=4).map(|item| submit(&batcher, item)));
    assert_eq!(batches.recv().await, Some(vec![3, 4]));
    tasks.extend((5..=7).map(|item| submit(&batcher, item)));
    while batcher.shared.lock().waiting.len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(batcher.shared.lock().in_flight, 3);
    permits.add_permits(100);
    for (item, task) in (0_u32..).zip(tasks) {
        assert_eq!(task.await.expect("no panic").expect("an answer"), item * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn items_behind_a_stalled_batch_start_another_even_if_no_further_item_arrives() {
    let (batcher, mut batches, permits) = gated();
    let stalled = submit(&batcher, 1);
    assert_eq!(batches.recv().await, Some(vec![1]));
    let waiting = submit(&batcher, 2);
    assert_eq!(batches.recv().await, Some(vec![2]));
    permits.add_permits(2);
    assert_eq!(waiting.await.expect("no panic").expect("an answer"), 4);
    assert_eq!(stalled.await.expect("no panic").expect("an answer"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_is_dropped_from_its_batch() {
    let (batcher, mut batches, permits) = gated();
    let first = submit(&batcher, 1);
    batches.recv().await;
    let gone = submit(&batcher, 2);
    let stays = submit(&batcher, 3);
    while batcher.shared.lock().waiting.len() < 2 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.expect_err("aborted").is_cancelled());
    permits.add_permits(2);
    assert_eq!(batches.recv().await, Some(vec![3]));
    assert_eq!(first.await.expect("no panic").expect("an answer"), 2);
    assert_eq!(stays.await.expect("no panic").expect("an answer"), 6);
}

#[tokio::test(start_paused = true)]
async fn no_item_waits_in_the_queue_beyond_the_deadline() {
    let (batcher, mut batches, permits) = gated_within(BatchLimits { in_flight: 1, ..LIMITS });
    let stuck = submit(&batcher, 1);
    batches.recv().await;
    let begun = Instant::now();
    let late = batcher.submit(2).await;
    assert!(matches!(late, Err(StoreError::Unavailable { .. })), "{late:?}");
    assert!(begun.elapsed() <= LIMITS.wait, "{:?}", begun.elapsed());
    permits.add_permits(1);
    assert_eq!(stuck.await.expect("no panic").expect("an answer"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_client_that_started_a_batch_may_disconnect_without_affecting_the_others() {
    let (batcher, mut batches, permits) = gated();
    let first = submit(&batcher, 1);
    batches.recv().await;
    first.abort();
    let second = submit(&batcher, 2);
    permits.add_permits(2);
    assert_eq!(second.await.expect("no panic").expect("an answer"), 4);
}

#[tokio::test]
async fn a_panic_in_one_batch_is_an_error_for_its_items_and_not_for_the_next() {
    let unknown = panicked(BatchLimits { changes: true, ..LIMITS }).await;
    assert!(matches!(unknown, StoreError::OutcomeUnknown { .. }), "{unknown:?}");
    let undone = panicked(LIMITS).await;
    assert!(matches!(undone, StoreError::Unavailable { .. }), "{undone:?}");
}

/// The error of the items of a batch that panics.
async fn panicked(limits: BatchLimits) -> StoreError {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let work = move |items: Vec<u32>| {
        let counted = counted.clone();
        async move {
            assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "the first batch panics");
            items.into_iter().map(Ok).collect()
        }
        .boxed()
    };
    let batcher = Batcher::new(NAME, limits, Box::new(work));
    let error = batcher.submit(1).await.expect_err("it panicked");
    assert_eq!(batcher.submit(2).await.expect("an answer"), 2);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_item_gets_its_own_answer() {
    let work = |items: Vec<u32>| async move { items.into_iter().map(|item| Ok(item * 2)).collect() }.boxed();
    let limits = BatchLimits { size: 16, eager: 2, worth: 8, in_flight: 4, queue: 100_000, ..LIMITS };
    let batcher = Batcher::new(NAME, limits, Box::new(work));
    let tasks: Vec<_> = (0..20_000).map(|item| (item, submit(&batcher, item))).collect();
    for (item, task) in tasks {
        assert_eq!(task.await.expect("no panic").expect("an answer"), item * 2);
    }
}
