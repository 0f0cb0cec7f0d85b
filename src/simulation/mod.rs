//! Runs batches, pools, coalesced reads, fair queues, cancellation and budgets under random schedules that a seed reproduces.
//!
//! All of this crate's code is real, including the driver's protocol; PostgreSQL (`postgres`) and time are simulated: on
//! tokio's paused clock, time advances to the next timer whenever all tasks are waiting, so hours of deadlines take
//! milliseconds, and the load of the machine has no influence. A schedule chooses sizes, deadlines, when clients arrive, wait
//! and disconnect, and which faults PostgreSQL has meanwhile; then the guarantees are checked. `make simulate SCHEDULES=10000
//! SEED=1` runs more schedules.

mod budget;
mod clients;
pub mod postgres;
mod random;
mod reconnection;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::runtime::Builder;

use random::Random;

/// Number of schedules if the variable is not set.
const SCHEDULES: u64 = 500;

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, found {text:?}")))
}

/// Runs schedules with consecutive seeds; a failed one prints its seed.
fn run(schedule: impl AsyncFn(Random)) {
    let first = setting("SEED", 1);
    for seed in first..first + setting("SCHEDULES", SCHEDULES) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let running = catch_unwind(AssertUnwindSafe(|| runtime.block_on(schedule(Random::new(seed)))));
        if let Err(panic) = running {
            eprintln!("the schedule failed; reproduce with: make simulate SCHEDULES=1 SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn every_client_gets_its_own_answer_and_nothing_leaks_whatever_faults_postgres_has() {
    run(clients::schedule);
}

#[test]
fn a_budget_is_bounded_and_everything_is_returned_to_it() {
    run(budget::schedule);
}
