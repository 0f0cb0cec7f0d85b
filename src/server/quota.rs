//! Limits the requests per second of each principal.
//!
//! Uses the generic cell rate algorithm: the requests of one second may come in a burst, and further ones are permitted as time
//! passes. Anonymous requests are counted by the client's address. Each server counts separately.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{NotUntil, Quota, RateLimiter};

use crate::auth::principal::Principal;
use crate::http::client::Client;
use crate::http::route::RateLimit;
use crate::shutdown::Shutdown;

/// Interval at which principals with a full quota are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The key of a counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    /// A named principal.
    Named(Arc<str>),
    /// Anonymous requests from this address.
    At(Client),
}

type Counts =
    RateLimiter<Counted, governor::state::keyed::DashMapStateStore<Counted>, DefaultClock, StateInformationMiddleware>;

/// Token lookups per second of an address, per permitted request of a principal: after a change of any token all tokens are
/// looked up again, and many principals may share an address.
const LOOK_UPS: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");

/// Counts the requests of each principal.
#[derive(Clone)]
pub struct PrincipalQuota {
    per_second: NonZeroU32,
    counts: Arc<Counts>,
    look_ups: Arc<Counts>,
}

impl PrincipalQuota {
    /// Starts with this many requests per second; until shutdown, idle principals are forgotten.
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
                    // Time itself is the condition here.
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

    /// Counts a token lookup for an address.
    ///
    /// # Errors
    /// If the quota is exhausted: the seconds until the next one is permitted.
    pub fn take_look_up(&self, client: Client) -> Result<(), u64> {
        self.look_ups.check_key(&Counted::At(client)).map(drop).map_err(|refused| seconds(&refused))
    }

    /// Counts a request of a principal from an address.
    ///
    /// # Errors
    /// If the quota is exhausted: the seconds until the next one is permitted.
    pub fn take(&self, principal: &Principal, client: Client) -> Result<RateLimit, (RateLimit, u64)> {
        let counted = principal.name.clone().map_or(Counted::At(client), Counted::Named);
        let limit = |remaining| RateLimit { per_second: self.per_second.get(), remaining };
        match self.counts.check_key(&counted) {
            Ok(state) => Ok(limit(state.remaining_burst_capacity())),
            Err(refused) => Err((limit(0), seconds(&refused))),
        }
    }
}

/// Whole seconds until the next one is permitted, for `Retry-After`.
fn seconds(refused: &NotUntil<<DefaultClock as Clock>::Instant>) -> u64 {
    refused.wait_time_from(DefaultClock::default().now()).as_secs() + 1
}
