//! The listener for air-quality changes, lost or unresponsive: outdated answers are served no longer than the loss stays
//! undetected.

use std::process::Command;

use reqwest::StatusCode;
use tokio_postgres::Client;

use crate::harness::{Answer, TestApp, eventually};

/// A server with a connected change listener and a connection in each pool, and a client for observing the database.
async fn with_listener() -> (TestApp, Client, i32) {
    let app = TestApp::start().await;
    let client = app.database.as_ref().expect("own database").client().await;
    // The pool's own connection may briefly match the query that identifies the change listener; wait until only one does.
    let follower = "select pid from pg_stat_activity where datname = current_database() and state = 'idle' \
                    and query = 'select generation from air_quality_generation'";
    let pid = std::sync::Mutex::new(0);
    eventually(|| async {
        app.get("/air_quality").await.expect(StatusCode::OK);
        app.post("/v1/steps", &serde_json::json!({"component": "a", "version": "1", "owner": "o", "status": "s"}))
            .await
            .expect(StatusCode::CREATED);
        match client.query(follower, &[]).await.expect("listed").as_slice() {
            [row] => *pid.lock().expect("no panic") = row.get(0),
            rows => return Err(format!("{} connections listen for changes", rows.len())),
        }
        Ok(())
    })
    .await;
    (app, client, pid.into_inner().expect("no panic"))
}

/// Adds a reading of station `number`, as an import does.
async fn change(client: &Client, number: i64) {
    let reading = "insert into air_quality (id_entity, measured_at) values ('s' || $1::bigint, now())";
    client.execute(reading, &[&number]).await.expect("inserted");
}

fn stations(answer: &Answer) -> usize {
    answer.expect(StatusCode::OK).json()["entities"].as_array().map_or(0, Vec::len)
}

async fn until_shown(app: &TestApp, wanted: usize) {
    eventually(|| async {
        match stations(&app.get("/air_quality").await) {
            shown if shown == wanted => Ok(()),
            shown => Err(format!("{shown} stations are shown, not {wanted}")),
        }
    })
    .await;
}

#[tokio::test]
async fn while_the_change_listener_is_disconnected_no_outdated_answer_is_served() {
    let (app, client, follower) = with_listener().await;
    // Existing connections stay open, and no new one is accepted.
    let allow = "update pg_database set datallowconn = $1 where datname = current_database()";
    client.execute(allow, &[&false]).await.expect("refused from now on");
    client.execute("select pg_terminate_backend($1)", &[&follower]).await.expect("terminated");
    for number in 1..=3 {
        change(&client, number).await;
        until_shown(&app, usize::try_from(number).expect("small")).await;
        // The cached answer is still used: the generation is queried, the readings are not read again.
        let again = app.get("/air_quality").await;
        assert_eq!((again.header("x-cache"), stations(&again)), ("HIT", usize::try_from(number).expect("small")));
    }
    client.execute(allow, &[&true]).await.expect("allowed again");
    change(&client, 4).await;
    until_shown(&app, 4).await;
}

#[tokio::test]
async fn while_the_change_listener_is_unresponsive_no_outdated_answer_is_served() {
    let (app, client, follower) = with_listener().await;
    let silent = Stopped::new(follower);
    for number in 1..=2 {
        change(&client, number).await;
        until_shown(&app, usize::try_from(number).expect("small")).await;
    }
    drop(silent);
}

/// A stopped process, which is continued on drop.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Self {
        signal(pid, "-STOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "-CONT");
    }
}

fn signal(pid: i32, signal: &str) {
    let done = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill is there");
    assert!(done.success(), "kill {signal} {pid}");
}
