//! How many requests a principal may send in a second.
//!
//! By the generic cell rate algorithm: a second's requests may come at once, and the next ones as time passes. Whoever has no
//! name is told apart by the client's address. Each server counts for itself.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{NotUntil, Quota, RateLimiter};

use crate::auth::principal::Principal;
use crate::http::client::Client;
use crate::http::route::Share;
use crate::shutdown::Shutdown;

/// Principals that have everything left are forgotten this often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    /// A principal with a name.
    Named(Arc<str>),
    /// Whoever comes from this address.
    At(Client),
}

type Counts =
    RateLimiter<Counted, governor::state::keyed::DashMapStateStore<Counted>, DefaultClock, StateInformationMiddleware>;

/// Tokens of an address that are looked up in a second, for each request of a principal in it: after a change of any token
/// all of them are, and many principals may share an address.
const LOOK_UPS: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");

/// Counts the requests of each principal.
#[derive(Clone)]
pub struct PrincipalQuota {
    per_second: NonZeroU32,
    counts: Arc<Counts>,
    look_ups: Arc<Counts>,
}

impl PrincipalQuota {
    /// So many requests a second; until the shutdown it forgets who has sent none for a while.
    pub fn start(per_second: NonZeroU32, shutdown: Shutdown) -> Self {
        let limiter = |per_second| {
            let counts = RateLimiter::dashmap(Quota::per_second(per_second));
            Arc::new(counts.with_middleware::<StateInformationMiddleware>())
        };
        let (counts, look_ups) = (limiter(per_second), limiter(per_second.saturating_mul(LOOK_UPS)));
        let quota = Self { per_second, counts: counts.clone(), look_ups: look_ups.clone() };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What ends here is a time itself, so there is nothing else to wait for.
                    () = tokio::time::sleep(FORGET_EVERY) => {
                        counts.retain_recent();
                        look_ups.retain_recent();
                    }
                    () = shutdown.requested() => return,
                }
            }
        });
        quota
    }

    /// Takes the looking up of a token that an address sends.
    ///
    /// # Errors
    /// When there is none left: after how many seconds there is another.
    pub fn take_look_up(&self, client: Client) -> Result<(), u64> {
        self.look_ups.check_key(&Counted::At(client)).map(drop).map_err(|refused| seconds(&refused))
    }

    /// Takes a request of a principal from an address.
    ///
    /// # Errors
    /// When there is none left: after how many seconds there is another.
    pub fn take(&self, principal: &Principal, client: Client) -> Result<Share, (Share, u64)> {
        let counted = principal.name.clone().map_or(Counted::At(client), Counted::Named);
        let share = |remaining| Share { per_second: self.per_second.get(), remaining };
        match self.counts.check_key(&counted) {
            Ok(state) => Ok(share(state.remaining_burst_capacity())),
            Err(refused) => Err((share(0), seconds(&refused))),
        }
    }
}

/// Whole seconds until there is another, as `Retry-After` has it.
fn seconds(refused: &NotUntil<<DefaultClock as Clock>::Instant>) -> u64 {
    refused.wait_time_from(DefaultClock::default().now()).as_secs() + 1
}
