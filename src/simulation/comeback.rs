//! PostgreSQL is away and comes back: how often it is asked for meanwhile, and how soon clients are served again.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_postgres::Config;

use super::clients::ASK;
use super::postgres::{Mode, Order, Postgres, READ};
use super::random::Random;
use crate::db::conninfo::ConnInfo;
use crate::db::pool::{Pool, PoolKind, PoolOptions};

/// Beyond the pause between two attempts: the attempt itself, and the statement.
const CONNECTS_WITHIN: Duration = Duration::from_millis(30);

/// Clients that ask without pause until they are served again; how long after its return each was, and how often it was asked for.
async fn comeback(mode: Mode, away: Duration, clients: usize) -> (Duration, usize) {
    let postgres = Postgres::new(Random::new(1));
    let mut config = Config::new();
    config.host_path("/simulated").user("simulated");
    let options = PoolOptions {
        kind: PoolKind::Keys,
        size: 8,
        checkout_timeout: Duration::from_secs(1),
        statement_timeout: Duration::from_secs(10),
    };
    let pool = Pool::new(&ConnInfo::from_config(config).expect("no TLS is asked for"), &options);
    let ask = async || pool.read(&ASK, READ, &[&vec![1_i64], &1_i64]).await.is_ok();
    assert!(join_all((0..clients).map(|_| ask())).await.iter().all(|served| *served));
    postgres.set(mode);
    postgres.order(Order::Kill, true);
    sleep(Duration::from_millis(5)).await;
    let before = postgres.attempts();
    let comes_back = async {
        sleep(away).await;
        let attempts = postgres.attempts() - before;
        postgres.set(Mode::Up);
        (Instant::now(), attempts)
    };
    let served = join_all((0..clients).map(|_| async {
        while !ask().await {}
        Instant::now()
    }));
    let ((back, attempts), served) = futures_util::future::join(comes_back, served).await;
    (served.into_iter().max().expect("there are clients") - back, attempts)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_serves_within_a_tenth_of_a_second_and_was_asked_for_by_one() {
    for mode in [Mode::Starting, Mode::Away] {
        // Whatever part of a pause and of a place's life it comes back in, for a client alone as for many.
        for part in 0..40 {
            for clients in [1, 40] {
                let away = Duration::from_millis(3000 + 13 * part);
                let (after, attempts) = comeback(mode, away, clients).await;
                assert!(
                    after <= Duration::from_millis(100) + CONNECTS_WITHIN,
                    "{clients} clients were served after {after:?}"
                );
                // Ten in a second, and those that were under way when it went; each of eight places by itself would ask a
                // hundred times.
                assert!(attempts <= 50, "it was asked for {attempts} times in {away:?} by {clients} clients");
            }
        }
    }
}
