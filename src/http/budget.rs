//! Bounds the total that all requests use of a resource: memory for bodies, memory for lists, disk for spooled bodies.
//!
//! Per-connection limits bound one request, but a thousand connections multiply them. Bytes are therefore reserved in a shared
//! budget before they are used, and released when the reservation is dropped. One client can reserve at most its share, so that
//! the budget lasts for others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::problem::Problem;

/// Gauge of the reserved bytes of a budget.
pub const BUDGET_USED: &str = "budget_used_bytes";
/// Counter of refused reservations.
pub const BUDGET_REFUSED: &str = "budget_refused_total";

/// A budget of bytes. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    /// Total number of bytes.
    total: usize,
    /// Maximum number of bytes per client.
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

/// Why a reservation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The client has reserved its whole share.
    Client,
    /// The whole budget is reserved.
    Exhausted,
}

/// To whom a reservation is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// To one client and its share.
    Client(Client),
    /// To the total only: several clients share the memory.
    Several,
    /// To one client's share only: its part of memory that several clients share.
    Part(Client),
}

/// A reservation; dropping it releases the bytes.
pub struct Reservation {
    budget: Budget,
    holder: Holder,
    bytes: AtomicUsize,
}

impl Budget {
    /// A budget of `total` bytes, of which one client may reserve `share`. Its metrics carry `name`.
    pub fn new(name: &'static str, total: usize, share: usize) -> Self {
        let used = metrics::gauge!(BUDGET_USED, "budget" => name);
        let refused = metrics::counter!(BUDGET_REFUSED, "budget" => name);
        Self(Arc::new(Shared { total, share, account: Mutex::default(), freed: Notify::new(), used, refused }))
    }

    /// Reserves bytes if they are available.
    ///
    /// # Errors
    /// If they are not.
    pub fn take(&self, holder: Holder, bytes: usize) -> Result<Reservation, Refused> {
        self.add(holder, bytes).inspect_err(|_| self.0.refused.increment(1))?;
        Ok(self.reservation(holder, bytes))
    }

    /// A reservation of nothing yet, for memory that is already in use ([`Reservation::resize`]).
    pub fn empty(&self, holder: Holder) -> Reservation {
        self.reservation(holder, 0)
    }

    fn reservation(&self, holder: Holder, bytes: usize) -> Reservation {
        Reservation { budget: self.clone(), holder, bytes: bytes.into() }
    }

    /// Waits until a deadline for bytes to become available.
    ///
    /// # Errors
    /// If they are not available in time.
    pub async fn wait(&self, holder: Holder, bytes: usize, deadline: Instant) -> Result<Reservation, Refused> {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Registered before the check, so that no release after it is missed.
            freed.as_mut().enable();
            let refused = match self.add(holder, bytes) {
                Ok(()) => return Ok(self.reservation(holder, bytes)),
                Err(refused) => refused,
            };
            if timeout_at(deadline, freed).await.is_err() {
                self.0.refused.increment(1);
                return Err(refused);
            }
        }
    }

    /// Returns true if more than a quarter is reserved, so that requests should use smaller buffers.
    pub fn is_scarce(&self) -> bool {
        self.lock().used > self.0.total / 4
    }

    fn add(&self, holder: Holder, bytes: usize) -> Result<(), Refused> {
        let Shared { total, share, .. } = *self.0;
        let mut account = self.lock();
        // A single request may exceed the budget; otherwise it could never be served.
        if holder.is_of_total() && account.used > 0 && account.used + bytes > total {
            return Err(Refused::Exhausted);
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

    fn release(&self, holder: Holder, bytes: usize) {
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

impl Reservation {
    /// The number of reserved bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reserves more.
    ///
    /// # Errors
    /// If they are not available.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        self.try_grow(bytes).inspect_err(|_| self.budget.0.refused.increment(1))
    }

    /// As [`Reservation::grow`], for a caller that can do with less: nothing is counted as refused.
    ///
    /// # Errors
    /// If they are not available.
    pub fn try_grow(&self, bytes: usize) -> Result<(), Refused> {
        self.budget.add(self.holder, bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Adjusts the reservation to the actual size, even beyond the budget, because that memory is already in use.
    pub fn resize(&mut self, bytes: usize) {
        let before = std::mem::replace(self.bytes.get_mut(), bytes);
        if bytes < before {
            self.budget.release(self.holder, before - bytes);
        } else {
            let mut account = self.budget.lock();
            let more = bytes - before;
            if let Some(client) = self.holder.client() {
                *account.clients.entry(client).or_default() += more;
            }
            if self.holder.is_of_total() {
                account.used += more;
                self.budget.show(&account);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.holder, self.bytes());
    }
}

impl Refused {
    /// The problem for the refused request; `what` names the exhausted resource.
    pub fn problem(self, what: &str) -> Problem {
        match self {
            Self::Client => Problem::too_many(format!(
                "requests from this address use its share of the service's {what}; nothing was done, wait until some \
                 of them end and send this one again"
            )),
            Self::Exhausted => Problem::unavailable(format!(
                "the service's {what} is fully used; nothing was done, send the request again"
            )),
        }
    }
}
