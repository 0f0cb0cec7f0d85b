//! Holders of a budget that acquire, grow, resize, wait and disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::time::{Duration, Instant, sleep, timeout};
use warp::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::random::Random;
use crate::http::budget::{Budget, Holder, Reservation};
use crate::http::client::Client;

/// Longer than any deadline in a schedule.
const LONG: Duration = Duration::from_secs(3600);

/// Number of clients that share the budget.
const CLIENTS: u64 = 4;

/// The sum over all holders.
#[derive(Default)]
struct Sum(AtomicUsize);

/// A part of the budget that is counted in the sum.
struct Counted {
    held: Reservation,
    sum: Arc<Sum>,
    counts: bool,
}

impl Counted {
    fn new(held: Reservation, sum: &Arc<Sum>, holder: Holder) -> Self {
        let counts = !matches!(holder, Holder::Part(_));
        if counts {
            sum.0.fetch_add(held.bytes(), Ordering::Relaxed);
        }
        Self { held, sum: sum.clone(), counts }
    }

    /// Changes what is held, and updates the sum.
    fn change(&mut self, change: impl FnOnce(&mut Reservation)) {
        let before = self.held.bytes();
        change(&mut self.held);
        if self.counts {
            self.sum.0.fetch_add(self.held.bytes(), Ordering::Relaxed);
            self.sum.0.fetch_sub(before, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.counts {
            self.sum.0.fetch_sub(self.held.bytes(), Ordering::Relaxed);
        }
    }
}

fn client(number: u64) -> Client {
    let address = HeaderValue::from_str(&format!("10.0.0.{number}")).expect("an address");
    Client::of(&HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), address)]))
}

pub async fn schedule(random: Random) {
    let total = random.size(1, 200);
    let share = random.size(1, total + 1);
    let budget = Budget::new("simulated", total, share);
    let sum = Arc::new(Sum::default());
    let holders = (0..random.between(2, 40)).map(|_| {
        let (budget, sum, random) = (budget.clone(), sum.clone(), random.clone());
        tokio::spawn(async move {
            sleep(random.millis(0, 100)).await;
            let holder = match random.between(0, 4) {
                0 => Holder::Several,
                1 => Holder::Part(client(random.between(0, CLIENTS))),
                _ => Holder::Client(client(random.between(0, CLIENTS))),
            };
            let bytes = random.size(0, total + 2);
            let stays = random.millis(0, 50);
            let taken = if random.percent(50) {
                budget.take(holder, bytes)
            } else {
                let waiting = budget.wait(holder, bytes, Instant::now() + random.millis(0, 200));
                // A client that disconnects while it waits holds nothing.
                match timeout(random.millis(0, 200), waiting).await {
                    Ok(taken) => taken,
                    Err(_) => return,
                }
            };
            let Ok(held) = taken else { return };
            let mut counted = Counted::new(held, &sum, holder);
            // A single holder may exceed the total, as may one that was resized.
            let alone = counted.counts && sum.0.load(Ordering::Relaxed) == counted.held.bytes();
            let within = sum.0.load(Ordering::Relaxed) <= total;
            assert!(within || alone || !counted.counts, "{} of {total} bytes are held", sum.0.load(Ordering::Relaxed));
            sleep(stays).await;
            match random.between(0, 3) {
                0 => counted.change(|held| {
                    let _ = held.grow(random.size(0, 20)); // refused or not
                }),
                1 => counted.change(|held| held.resize(random.size(0, held.bytes() + 1))),
                _ => {}
            }
            sleep(random.millis(0, 50)).await;
        })
    });
    for holder in join_all(holders).await {
        holder.expect("no panic");
    }
    assert_eq!(sum.0.load(Ordering::Relaxed), 0);
    // Everything is available again, in total and for each client.
    drop(budget.take(Holder::Several, total).expect("all of it was returned"));
    for number in 0..CLIENTS {
        drop(budget.take(Holder::Part(client(number)), share).expect("its share was returned"));
        drop(budget.take(Holder::Client(client(number)), share).expect("its share was returned"));
    }
    // A waiting holder gets it as soon as it is returned.
    let all = budget.take(Holder::Several, total).expect("all of it");
    let waiting = budget.wait(Holder::Several, total, Instant::now() + LONG);
    let after = random.millis(1, 1000);
    let begun = Instant::now();
    let (taken, ()) = futures_util::future::join(waiting, async move {
        sleep(after).await;
        drop(all);
    })
    .await;
    assert!(taken.is_ok());
    assert_eq!(begun.elapsed(), after);
}
