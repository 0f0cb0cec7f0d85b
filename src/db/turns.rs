//! Turns at work that is heavy: a bounded number at once, shared fairly between clients, and a bounded queue for them.
//!
//! Of the clients that wait, the one whose turns have taken the least time goes next; who has had none for a while begins
//! level with the others. A client alone may have every turn and the whole queue. When the queue is full, the client
//! with the most waiting loses its newest for one that has fewer. Nobody waits longer than their patience.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::StoreError;

/// Who takes turns: the address under which requests belong together.
pub type Client = IpAddr;

/// Name of the counter of turns that were refused.
pub const TURNS_REFUSED: &str = "db_list_refused_total";

/// Most that wait for a turn at sessions.
const QUEUE: usize = 1024;
/// So many clients are remembered for the time that they have taken while none of their work is here.
const REMEMBERED: usize = 1024;

/// Turns at one kind of work. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
    /// Most that wait.
    queue: usize,
}

struct State {
    free: usize,
    waiting: usize,
    /// The time that each of those who had work here could have taken so far: where a client begins that is not remembered.
    level: Duration,
    clients: HashMap<Client, Account>,
}

#[derive(Default)]
struct Account {
    taken: Duration,
    at_work: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

impl Account {
    /// Whether it has work here.
    fn is_here(&self) -> bool {
        self.at_work > 0 || !self.waiting.is_empty()
    }
}

/// A turn; it ends when this is dropped.
pub struct Turn {
    state: Arc<Mutex<State>>,
    client: Client,
    since: Instant,
}

impl Turns {
    /// As many at once as there are sessions, with room for those who wait.
    pub fn at_sessions(size: u32) -> Self {
        Self::new(usize::try_from(size).expect("a pool is small"), QUEUE)
    }

    /// So many at once, and so many waiting.
    pub fn new(size: usize, queue: usize) -> Self {
        let state = State { free: size, waiting: 0, level: Duration::ZERO, clients: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), queue }
    }

    /// Waits for a turn. Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the queue is full or the patience is at its end.
    pub async fn take(&self, client: &Client, patience: Duration) -> Result<Turn, StoreError> {
        let place = {
            let mut state = lock(&self.state);
            if state.free > 0 && state.waiting == 0 {
                return Ok(state.begin(&self.state, client));
            }
            if state.waiting >= self.queue {
                state.forget_who_left();
            }
            if state.waiting >= self.queue && !state.displace_for(client) {
                return Err(refused());
            }
            let (sender, place) = oneshot::channel();
            state.waiting += 1;
            state.account(client).waiting.push_back(sender);
            place
        };
        grant(&self.state);
        match tokio::time::timeout(patience, place).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }
}

fn refused() -> StoreError {
    metrics::counter!(TURNS_REFUSED).increment(1);
    StoreError::unavailable("too many lists are being read")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that can panic runs under the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the next ones begin while there is room.
fn grant(shared: &Arc<Mutex<State>>) {
    loop {
        let mut state = lock(shared);
        let Some((client, place)) = state.next() else { return };
        let turn = state.begin(shared, &client);
        drop(state);
        // Who has left in the meantime gives the turn back, which lets the next one begin.
        drop(place.send(turn));
    }
}

impl State {
    fn account(&mut self, client: &Client) -> &mut Account {
        if self.clients.len() > REMEMBERED {
            self.clients.retain(|_, account| account.is_here());
        }
        let level = self.level;
        self.clients.entry(*client).or_insert_with(|| Account { taken: level, ..Account::default() })
    }

    fn begin(&mut self, shared: &Arc<Mutex<Self>>, client: &Client) -> Turn {
        self.free -= 1;
        self.account(client).at_work += 1;
        Turn { state: shared.clone(), client: *client, since: Instant::now() }
    }

    /// Takes out of the queue whoever is to begin now.
    fn next(&mut self) -> Option<(Client, oneshot::Sender<Turn>)> {
        while self.free > 0 && self.waiting > 0 {
            let waiting = self.clients.iter_mut().filter(|(_, account)| !account.waiting.is_empty());
            let (client, account) = waiting.min_by_key(|(_, account)| account.taken)?;
            let place = account.waiting.pop_front()?;
            self.waiting -= 1;
            if !place.is_closed() {
                return Some((*client, place));
            }
        }
        None
    }

    fn forget_who_left(&mut self) {
        for account in self.clients.values_mut() {
            account.waiting.retain(|place| !place.is_closed());
        }
        self.waiting = self.clients.values().map(|account| account.waiting.len()).sum();
    }

    /// Makes room in a full queue at the cost of the client that has the most in it; whether that is another one.
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

    fn end(&mut self, client: &Client, took: Duration) {
        self.free += 1;
        let here = self.clients.values().filter(|account| account.is_here()).count().max(1);
        self.level += took / u32::try_from(here).unwrap_or(u32::MAX);
        let Some(account) = self.clients.get_mut(client) else { return };
        account.at_work -= 1;
        account.taken += took;
        // What a client has taken matters only while it is more than its share.
        let level = self.level;
        self.clients.retain(|_, account| account.is_here() || account.taken > level);
    }
}

impl Turn {
    /// Ends the turn after a pause, in which nobody else has it.
    pub fn end_after(self, pause: Duration) {
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(pause).await; // the pause is what others need: nothing announces its end
                drop(self);
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.state).end(&self.client, self.since.elapsed());
        grant(&self.state);
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
    async fn who_has_taken_less_time_goes_first_however_many_another_has_waiting() {
        let turns = Turns::new(1, 100);
        let (greedy, modest) = (client(1), client(2));
        let at_work = turns.take(&greedy, LONG).await.expect("free");
        let mut queue: Vec<_> = (0..50).map(|_| Box::pin(turns.take(&greedy, LONG))).collect();
        for waiting in &mut queue {
            assert!(waiting.now_or_never().is_none());
        }
        let mut late = Box::pin(turns.take(&modest, LONG));
        assert!((&mut late).now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(at_work);
        let turn = late.now_or_never().expect("the modest one is next").expect("a turn");
        assert!(queue.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        drop(turn);
        let begun = queue.iter_mut().filter_map(FutureExt::now_or_never).count();
        assert_eq!(begun, 50, "each gave its turn to the one behind it");
    }

    #[tokio::test]
    async fn a_client_alone_has_every_turn_and_the_whole_queue() {
        let turns = Turns::new(2, 3);
        let one = client(1);
        let held = [turns.take(&one, LONG).await.expect("free"), turns.take(&one, LONG).await.expect("free")];
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.take(&one, LONG))).collect();
        assert!(waiting.iter_mut().all(|place| place.now_or_never().is_none()));
        assert!(turns.take(&one, LONG).now_or_never().expect("refused at once").is_err());
        let another = client(2);
        let mut displacing = Box::pin(turns.take(&another, LONG));
        assert!((&mut displacing).now_or_never().is_none(), "another one has room");
        assert!(waiting.pop().expect("three").now_or_never().expect("displaced").is_err());
        drop(held);
        displacing.await.expect("a turn");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_their_patience_and_who_left_takes_no_turn() {
        let turns = Turns::new(1, 10);
        let one = client(1);
        let held = turns.take(&one, LONG).await.expect("free");
        assert!(turns.take(&one, Duration::from_secs(1)).await.is_err());
        let mut left = Box::pin(turns.take(&one, LONG));
        assert!((&mut left).now_or_never().is_none());
        drop(left);
        drop(held);
        turns.take(&one, LONG).now_or_never().expect("free again").expect("a turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_ends_after_a_pause_is_nobodys_meanwhile() {
        let turns = Turns::new(1, 10);
        let one = client(1);
        turns.take(&one, LONG).await.expect("free").end_after(Duration::from_secs(5));
        let asked = Instant::now();
        turns.take(&one, LONG).await.expect("a turn");
        assert_eq!(asked.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_clients_is_bounded() {
        let turns = Turns::new(2, 10);
        let _other = turns.take(&client(u16::MAX), LONG).await.expect("free"); // so that each takes more than its share
        for number in 0..3000 {
            let turn = turns.take(&client(number), LONG).await.expect("free");
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(turn);
        }
        assert!(lock(&turns.state).clients.len() <= REMEMBERED + 1);
    }
}
