//! Bounds what all requests together hold of something: memory for bodies, memory for lists, disk for spooled bodies.
//!
//! A connection's own limits bound one request; a thousand connections multiply them. So bytes are taken from an account
//! before they are held and given back when the holder is dropped. One client holds at most a share, so that the others
//! find something left.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::problem::Problem;

/// Bytes that are held of a budget.
pub const BUDGET_USED: &str = "budget_used_bytes";
/// Requests that were refused for want of it.
pub const BUDGET_REFUSED: &str = "budget_refused_total";

/// An account of bytes. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    /// Most bytes that may be held.
    total: usize,
    /// Most bytes that one client may hold.
    share: usize,
    account: Mutex<Account>,
    freed: Notify,
    used: Gauge,
    refused: Counter,
}

#[derive(Default)]
struct Account {
    used: usize,
    clients: HashMap<Client, usize>,
}

/// Why bytes are not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This client holds its share.
    Client,
    /// Nothing is left for anybody.
    Everybody,
}

/// For whom bytes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// For one client, of its share.
    Client(Client),
    /// For whoever asked for the same: it is held once, and of nobody's share.
    Several,
    /// A client's part in what is held once for several: of its share alone.
    Part(Client),
}

/// Bytes that are held; dropping it gives them back.
pub struct Held {
    budget: Budget,
    holder: Holder,
    bytes: usize,
}

impl Budget {
    /// An account of this many bytes, of which one client may hold a share. Its metrics carry `name`.
    pub fn new(name: &'static str, total: usize, share: usize) -> Self {
        let used = metrics::gauge!(BUDGET_USED, "budget" => name);
        let refused = metrics::counter!(BUDGET_REFUSED, "budget" => name);
        Self(Arc::new(Shared { total, share, account: Mutex::default(), freed: Notify::new(), used, refused }))
    }

    /// Takes bytes if they are there.
    ///
    /// # Errors
    /// When they are not.
    pub fn take(&self, holder: Holder, bytes: usize) -> Result<Held, Refused> {
        self.add(holder, bytes).inspect_err(|_| self.0.refused.increment(1))?;
        Ok(Held { budget: self.clone(), holder, bytes })
    }

    /// Waits for bytes until a deadline.
    ///
    /// # Errors
    /// When they are not there in time.
    pub async fn wait(&self, holder: Holder, bytes: usize, deadline: Instant) -> Result<Held, Refused> {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Before the look, so that nothing given back after it is missed.
            freed.as_mut().enable();
            let refused = match self.add(holder, bytes) {
                Ok(()) => return Ok(Held { budget: self.clone(), holder, bytes }),
                Err(refused) => refused,
            };
            if timeout_at(deadline, freed).await.is_err() {
                self.0.refused.increment(1);
                return Err(refused);
            }
        }
    }

    /// Whether so much is held that everybody should take less.
    pub fn is_tight(&self) -> bool {
        self.lock().used > self.0.total / 4
    }

    fn add(&self, holder: Holder, bytes: usize) -> Result<(), Refused> {
        let Shared { total, share, .. } = *self.0;
        let mut account = self.lock();
        // A single request may take everything, or nothing would ever be large enough for it.
        if holder.is_of_total() && account.used > 0 && account.used + bytes > total {
            return Err(Refused::Everybody);
        }
        if let Some(client) = holder.client() {
            let held = account.clients.entry(client).or_default();
            if *held > 0 && *held + bytes > share {
                return Err(Refused::Client);
            }
            *held += bytes;
        }
        if holder.is_of_total() {
            account.used += bytes;
            self.show(&account);
        }
        Ok(())
    }

    fn give_back(&self, holder: Holder, bytes: usize) {
        let mut account = self.lock();
        if let Some(client) = holder.client()
            && let Entry::Occupied(mut held) = account.clients.entry(client)
        {
            *held.get_mut() -= bytes;
            if *held.get() == 0 {
                held.remove();
            }
        }
        if holder.is_of_total() {
            account.used -= bytes;
            self.show(&account);
        }
        drop(account);
        self.0.freed.notify_waiters();
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge, and far from 2^53")]
    fn show(&self, account: &Account) {
        self.0.used.set(account.used as f64);
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // No code that can panic runs under the lock.
        self.0.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn client(self) -> Option<Client> {
        match self {
            Self::Client(client) | Self::Part(client) => Some(client),
            Self::Several => None,
        }
    }

    fn is_of_total(self) -> bool {
        !matches!(self, Self::Part(_))
    }
}

impl Held {
    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more.
    ///
    /// # Errors
    /// When they are not there.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        self.budget.add(self.holder, bytes).inspect_err(|_| self.budget.0.refused.increment(1))?;
        self.bytes += bytes;
        Ok(())
    }

    /// Sets what is held to what it has turned out to be, even if that is more than there is: it is held already.
    pub fn settle(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.budget.give_back(self.holder, self.bytes - bytes);
        } else {
            let mut account = self.budget.lock();
            let more = bytes - self.bytes;
            if let Some(client) = self.holder.client() {
                *account.clients.entry(client).or_default() += more;
            }
            if self.holder.is_of_total() {
                account.used += more;
                self.budget.show(&account);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.give_back(self.holder, self.bytes);
    }
}

impl Refused {
    /// The answer to who is refused; `what` names what there is too little of.
    pub fn problem(self, what: &str) -> Problem {
        match self {
            Self::Client => Problem::too_many(format!(
                "requests of this address hold its share of the service's {what}; nothing was done, let some of them end \
                 and send this one again"
            )),
            Self::Everybody => Problem::unavailable(format!(
                "the service's {what} is all in use; nothing was done, send the request again"
            )),
        }
    }
}
