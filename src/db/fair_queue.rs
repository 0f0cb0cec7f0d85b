//! A fair queue for expensive work: bounds how much runs at once, shares it fairly between clients, and bounds how many callers
//! wait.
//!
//! The next permit goes to the waiting client that has used the least time; a client that has been inactive starts level with
//! the active ones. A client alone can hold every permit and fill the whole queue. When the queue is full, the client with the
//! most waiting callers loses its newest one to a client that has fewer. Every wait has a time limit.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::StoreError;

/// Identifies a client: the address by which requests are grouped.
pub type Client = IpAddr;

/// Name of the counter of refused lists.
pub const LISTS_REFUSED: &str = "db_list_refused_total";

/// Maximum number of callers waiting for a session.
const QUEUE: usize = 1024;
/// Number of inactive clients whose used time is remembered.
const REMEMBERED: usize = 1024;

/// A fair queue for one kind of work. Cheap to clone; clones share the queue.
#[derive(Clone)]
pub struct FairQueue {
    state: Arc<Mutex<State>>,
    /// Maximum number of waiting callers.
    capacity: usize,
}

struct State {
    free: usize,
    waiting: usize,
    /// Time that each client would have used so far if it had been active throughout with an equal share (virtual time):
    /// where a new client starts.
    virtual_time: Duration,
    clients: HashMap<Client, Account>,
}

#[derive(Default)]
struct Account {
    used: Duration,
    running: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

impl Account {
    /// Whether the client has running or waiting work.
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

/// Permission to run; released when dropped.
pub struct Permit {
    state: Arc<Mutex<State>>,
    client: Client,
    since: Instant,
}

impl FairQueue {
    /// A queue with one permit per session of a pool.
    pub fn for_sessions(size: u32) -> Self {
        Self::new(usize::try_from(size).expect("a pool is small"), QUEUE)
    }

    /// A queue with `permits` permits and at most `capacity` waiting callers.
    pub fn new(permits: usize, capacity: usize) -> Self {
        let state = State { free: permits, waiting: 0, virtual_time: Duration::ZERO, clients: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), capacity }
    }

    /// Waits for a permit. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the queue is full or `max_wait` has passed.
    pub async fn acquire(&self, client: &Client, max_wait: Duration) -> Result<Permit, StoreError> {
        let granted = {
            let mut state = lock(&self.state);
            if state.free > 0 && state.waiting == 0 {
                return Ok(state.grant(&self.state, client));
            }
            if state.waiting >= self.capacity {
                state.remove_cancelled();
            }
            if state.waiting >= self.capacity && !state.displace_for(client) {
                return Err(refused());
            }
            let (sender, granted) = oneshot::channel();
            state.waiting += 1;
            state.account(client).waiting.push_back(sender);
            granted
        };
        wake(&self.state);
        match tokio::time::timeout(max_wait, granted).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }
}

fn refused() -> StoreError {
    metrics::counter!(LISTS_REFUSED).increment(1);
    StoreError::unavailable("too many lists are being read")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that can panic runs under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Grants free permits to waiting callers.
fn wake(shared: &Arc<Mutex<State>>) {
    loop {
        let mut state = lock(shared);
        let Some((client, waiter)) = state.next() else { return };
        let permit = state.grant(shared, &client);
        drop(state);
        // If the caller has left in the meantime, the permit is dropped, which wakes the next one.
        drop(waiter.send(permit));
    }
}

impl State {
    fn account(&mut self, client: &Client) -> &mut Account {
        if self.clients.len() > REMEMBERED {
            self.clients.retain(|_, account| account.is_active());
        }
        let start = self.virtual_time;
        self.clients.entry(*client).or_insert_with(|| Account { used: start, ..Account::default() })
    }

    fn grant(&mut self, shared: &Arc<Mutex<Self>>, client: &Client) -> Permit {
        self.free -= 1;
        self.account(client).running += 1;
        Permit { state: shared.clone(), client: *client, since: Instant::now() }
    }

    /// Removes the next waiter from the queue if a permit is free.
    fn next(&mut self) -> Option<(Client, oneshot::Sender<Permit>)> {
        while self.free > 0 && self.waiting > 0 {
            let waiting = self.clients.iter_mut().filter(|(_, account)| !account.waiting.is_empty());
            let (client, account) = waiting.min_by_key(|(_, account)| account.used)?;
            let waiter = account.waiting.pop_front()?;
            self.waiting -= 1;
            if !waiter.is_closed() {
                return Some((*client, waiter));
            }
        }
        None
    }

    fn remove_cancelled(&mut self) {
        for account in self.clients.values_mut() {
            account.waiting.retain(|waiter| !waiter.is_closed());
        }
        self.waiting = self.clients.values().map(|account| account.waiting.len()).sum();
    }

    /// Frees a slot in a full queue by removing a waiter of the client that has the most; returns false if that is `client`
    /// itself or has no more than `client` would have.
    fn displace_for(&mut self, client: &Client) -> bool {
        let own = self.clients.get(client).map_or(0, |account| account.waiting.len());
        let Some(most) = self.clients.values_mut().max_by_key(|account| account.waiting.len()) else { return false };
        if most.waiting.len() <= own + 1 {
            return false;
        }
        most.waiting.pop_back();
        self.waiting -= 1;
        true
    }

    fn release(&mut self, client: &Client, elapsed: Duration) {
        self.free += 1;
        let active = self.clients.values().filter(|account| account.is_active()).count().max(1);
        self.virtual_time += elapsed / u32::try_from(active).unwrap_or(u32::MAX);
        let Some(account) = self.clients.get_mut(client) else { return };
        account.running -= 1;
        account.used += elapsed;
        // The time used by an inactive client matters only while it exceeds the client's share.
        let share = self.virtual_time;
        self.clients.retain(|_, account| account.is_active() || account.used > share);
    }
}

impl Permit {
    /// Releases the permit after a pause, during which no other client holds it.
    pub fn release_after(self, pause: Duration) {
        // Without a runtime, the process is exiting.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(pause).await; // the pause leaves the processors to other work; no event ends it
                drop(self);
            });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.state).release(&self.client, self.since.elapsed());
        wake(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn client(number: u16) -> Client {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_that_has_used_less_time_goes_first_however_many_another_has_waiting() {
        let queue = FairQueue::new(1, 100);
        let (greedy, modest) = (client(1), client(2));
        let running = queue.acquire(&greedy, LONG).await.expect("free");
        let mut waiters: Vec<_> = (0..50).map(|_| Box::pin(queue.acquire(&greedy, LONG))).collect();
        for waiter in &mut waiters {
            assert!(waiter.now_or_never().is_none());
        }
        let mut late = Box::pin(queue.acquire(&modest, LONG));
        assert!((&mut late).now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(running);
        let permit = late.now_or_never().expect("the modest client is next").expect("a permit");
        assert!(waiters.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
        drop(permit);
        let granted = waiters.iter_mut().filter_map(FutureExt::now_or_never).count();
        assert_eq!(granted, 50, "each released its permit to the next waiter");
    }

    #[tokio::test]
    async fn a_client_alone_can_hold_every_permit_and_fill_the_queue() {
        let queue = FairQueue::new(2, 3);
        let one = client(1);
        let held = [queue.acquire(&one, LONG).await.expect("free"), queue.acquire(&one, LONG).await.expect("free")];
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(queue.acquire(&one, LONG))).collect();
        assert!(waiters.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
        assert!(queue.acquire(&one, LONG).now_or_never().expect("refused at once").is_err());
        let another = client(2);
        let mut displacing = Box::pin(queue.acquire(&another, LONG));
        assert!((&mut displacing).now_or_never().is_none(), "another client displaces a waiter");
        assert!(waiters.pop().expect("three").now_or_never().expect("displaced").is_err());
        drop(held);
        displacing.await.expect("a permit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_limit_and_a_cancelled_waiter_gets_no_permit() {
        let queue = FairQueue::new(1, 10);
        let one = client(1);
        let held = queue.acquire(&one, LONG).await.expect("free");
        assert!(queue.acquire(&one, Duration::from_secs(1)).await.is_err());
        let mut cancelled = Box::pin(queue.acquire(&one, LONG));
        assert!((&mut cancelled).now_or_never().is_none());
        drop(cancelled);
        drop(held);
        queue.acquire(&one, LONG).now_or_never().expect("free again").expect("a permit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_released_after_a_pause_is_unavailable_meanwhile() {
        let queue = FairQueue::new(1, 10);
        let one = client(1);
        queue.acquire(&one, LONG).await.expect("free").release_after(Duration::from_secs(5));
        let begun = Instant::now();
        queue.acquire(&one, LONG).await.expect("a permit");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_clients_is_bounded() {
        let queue = FairQueue::new(2, 10);
        let _other = queue.acquire(&client(u16::MAX), LONG).await.expect("free"); // so that each exceeds its share
        for number in 0..3000 {
            let permit = queue.acquire(&client(number), LONG).await.expect("free");
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(permit);
        }
        assert!(lock(&queue.state).clients.len() <= REMEMBERED + 1);
    }
}
