//! Batches, pools, shared readings, turns, cancellation and budgets under schedules that a seed repeats.
//!
//! Everything of this crate in it is real, down to the driver's protocol; PostgreSQL (`postgres`) and time are not: on tokio's
//! paused clock the moment that is due next comes when everybody waits, so hours of deadlines take milliseconds and a machine
//! that is busy changes nothing. A schedule chooses sizes, deadlines, clients that come, wait and leave, and what happens to PostgreSQL
//! meanwhile; then it is held to what is promised. `make simulate SCHEDULES=10000 SEED=1` runs more of them.

mod clients;
mod comeback;
pub mod postgres;
mod random;
mod room;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::runtime::Builder;

use random::Random;

/// So many are run when nobody says how many.
const SCHEDULES: u64 = 500;

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, found {text:?}")))
}

/// Runs schedules with seeds in a row; one that fails says its seed.
fn run(schedule: impl AsyncFn(Random)) {
    let first = setting("SEED", 1);
    for seed in first..first + setting("SCHEDULES", SCHEDULES) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let running = catch_unwind(AssertUnwindSafe(|| runtime.block_on(schedule(Random::new(seed)))));
        if let Err(panic) = running {
            eprintln!("the schedule failed; again: make simulate SCHEDULES=1 SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn every_client_gets_its_own_answer_and_nothing_leaks_whatever_happens_to_postgres() {
    run(clients::schedule);
}

#[test]
fn what_is_held_of_a_budget_is_bounded_and_comes_back() {
    run(room::schedule);
}
