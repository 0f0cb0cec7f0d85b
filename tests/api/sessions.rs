//! Sessions have timeouts on both sides, and a closed, closing or busy session is never handed out.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use pycrudapi::db::pool::{Pool, PoolKind, PoolOptions};
use reqwest::StatusCode;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::harness::{ASKED, Database, TestApp, eventually, passenger};
use crate::pools::until_active;

/// Far longer than any successful wait in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn pool(database: &Database, statement_timeout: Duration) -> Pool {
    let options = PoolOptions { kind: PoolKind::Keys, size: 1, checkout_timeout: PATIENCE, statement_timeout };
    Pool::new(&database.conninfo(), &options)
}

async fn pid_of(pool: &Pool) -> i32 {
    pool.read(&ASKED, "select pg_backend_pid()", &[]).await.expect("a row")[0].get(0)
}

fn signal(name: &str, pid: i32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs").success());
}

/// Continues a stopped process on drop, however the test ends.
struct Stopped(i32);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status(); // it may have exited
    }
}

#[tokio::test]
async fn every_kind_of_session_sets_statement_and_idle_transaction_timeouts() {
    let database = Database::empty().await;
    for kind in [PoolKind::Keys, PoolKind::Lists, PoolKind::Probe] {
        let options =
            PoolOptions { kind, size: 1, checkout_timeout: PATIENCE, statement_timeout: Duration::from_millis(1234) };
        let pool = Pool::new(&database.conninfo(), &options);
        let settings = "select current_setting('statement_timeout'), \
                        current_setting('idle_in_transaction_session_timeout'), current_setting('timezone')";
        let row = pool.read(&ASKED, settings, &[]).await.expect("a row").remove(0);
        let found: [&str; 3] = [row.get(0), row.get(1), row.get(2)];
        assert_eq!(found, ["1234ms", "1234ms", "UTC"], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_backend_costs_one_503_and_its_session_only() {
    let database = Database::migrated().await;
    let pool = pool(&database, Duration::from_millis(200));
    let pid = pid_of(&pool).await;
    signal("-STOP", pid);
    let _stopped = Stopped(pid);
    let refused = timeout(PATIENCE, pool.read(&ASKED, "select 1", &[])).await.expect("our own deadline passes");
    assert!(refused.is_err());
    // Its slot in the pool is free again although the backend is still stopped.
    let next = timeout(PATIENCE, pid_of(&pool)).await.expect("another session");
    assert_ne!(next, pid);
}

#[tokio::test]
async fn a_failed_open_transaction_is_rolled_back_before_the_next_use() {
    let database = Database::migrated().await;
    let pool = pool(&database, PATIENCE);
    let pid = pid_of(&pool).await;
    let mut session = pool.session().await.expect("a session");
    // The state after a cancel request that arrives during `commit` or `rollback`.
    let failed = session.client_mut().batch_execute("begin; select 1 / 0").await;
    assert!(session.finish(Ok(failed)).is_err());
    drop(session);
    assert_eq!(timeout(PATIENCE, pid_of(&pool)).await.expect("a session"), pid);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_handed_out() {
    let database = Database::migrated().await;
    let pool = pool(&database, PATIENCE);
    let client: Client = database.client().await;
    for _ in 0..5 {
        let pid = pid_of(&pool).await;
        client.query_one("select pg_terminate_backend($1)", &[&pid]).await.expect("terminated");
        eventually(|| async {
            let there = "select count(*) from pg_stat_activity where pid = $1";
            let count: i64 = client.query_one(there, &[&pid]).await.expect("a row").get(0);
            if count == 0 { Ok(()) } else { Err(format!("{pid} is still there")) }
        })
        .await;
        for _ in 0..20 {
            client.query_one("select 1", &[]).await.expect("a row"); // meanwhile the driver detects the closed connection
        }
        // A write is not retried, so a closed connection would be visible.
        pool.write(&ASKED, "select 1", &[]).await.expect("a live connection");
    }
}

#[tokio::test]
async fn a_connection_that_is_being_terminated_is_not_reused() {
    let database = Database::migrated().await;
    let pool = pool(&database, PATIENCE);
    for _ in 0..5 {
        let session = pool.session().await.expect("a session");
        session.query("select pg_terminate_backend(pg_backend_pid())", &[]).await.expect_err("it ends");
        assert!(session.is_broken(), "the server has announced the termination");
        drop(session);
        pool.write(&ASKED, "select 1", &[]).await.expect("a live connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_does_not_delay_changes_of_other_rows() {
    let app = TestApp::start_with(&["--statement-timeout-ms=600000", "--checkout-timeout-ms=60000"]).await;
    let locked = app.create(&passenger()).await;
    let others = join_all((0..8).map(|_| async { app.create(&passenger()).await })).await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = app.database.as_ref().expect("own database").client().await;
    locker
        .batch_execute(&format!("begin; select from passengers where uuid = '{locked}' for update"))
        .await
        .expect("locked");
    let (body, url) = (passenger(), format!("/v1/passengers/{locked}"));
    let stuck = app.put(&url, &body);
    let passing = async {
        until_active(&watcher, 1).await;
        for uuid in &others {
            let answer = timeout(PATIENCE, app.put(&format!("/v1/passengers/{uuid}"), &body)).await;
            answer.expect("it does not wait for the locked row").expect(StatusCode::OK);
        }
        locker.batch_execute("rollback").await.expect("unlocked");
    };
    let (stuck, ()) = tokio::join!(stuck, passing);
    stuck.expect(StatusCode::OK);
}
