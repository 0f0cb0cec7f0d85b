//! PostgreSQL becomes unreachable and returns: how many connection attempts are made meanwhile, and how soon clients are served
//! again.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_postgres::Config;

use super::clients::OPERATION;
use super::postgres::{Mode, Order, Postgres, READ};
use super::random::Random;
use crate::db::conninfo::ConnInfo;
use crate::db::pool::{Pool, PoolKind, PoolOptions};

/// Allowance in addition to the retry interval: for the connection attempt and the statement.
const CONNECTS_WITHIN: Duration = Duration::from_millis(30);

/// Runs clients that retry continuously until they are served again; returns how long after the server's return the last one
/// was, and the number of connection attempts.
async fn reconnection(mode: Mode, away: Duration, clients: usize) -> (Duration, usize) {
    let postgres = Postgres::new(Random::new(1));
    let mut config = Config::new();
    config.host_path("/simulated").user("simulated");
    let options = PoolOptions {
        kind: PoolKind::Keys,
        size: 8,
        checkout_timeout: Duration::from_secs(1),
        statement_timeout: Duration::from_secs(10),
    };
    let pool = Pool::new(&ConnInfo::from_config(config).expect("no TLS is required"), &options);
    let request = async || pool.read(&OPERATION, READ, &[&vec![1_i64], &1_i64]).await.is_ok();
    assert!(join_all((0..clients).map(|_| request())).await.iter().all(|served| *served));
    postgres.set(mode);
    postgres.order(Order::Kill, true);
    sleep(Duration::from_millis(5)).await;
    let before = postgres.attempts();
    let returns = async {
        sleep(away).await;
        let attempts = postgres.attempts() - before;
        postgres.set(Mode::Up);
        (Instant::now(), attempts)
    };
    let served = join_all((0..clients).map(|_| async {
        while !request().await {}
        Instant::now()
    }));
    let ((back, attempts), served) = futures_util::future::join(returns, served).await;
    (served.into_iter().max().expect("there are clients") - back, attempts)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_returns_serves_within_a_tenth_of_a_second_and_only_one_slot_retries() {
    for mode in [Mode::Starting, Mode::Down] {
        // At different times within a retry interval and a slot's lifetime, for one client as for many.
        for part in 0..40 {
            for clients in [1, 40] {
                let away = Duration::from_millis(3000 + 13 * part);
                let (after, attempts) = reconnection(mode, away, clients).await;
                assert!(
                    after <= Duration::from_millis(100) + CONNECTS_WITHIN,
                    "{clients} clients were served after {after:?}"
                );
                // Ten per second, plus those in progress at the start; if each of the eight slots retried, there would be
                // hundreds.
                assert!(attempts <= 50, "{attempts} connection attempts in {away:?} by {clients} clients");
            }
        }
    }
}
