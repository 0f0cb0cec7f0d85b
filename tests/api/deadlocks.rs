//! Concurrent writes to the same rows never deadlock.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::harness::{Database, TestApp, eventually, send};
use crate::subjects::{Subject, flag, subjects};

const CLIENTS: usize = 128;
const ROWS: usize = 200;
/// Writes per client; without a fixed lock order they cause dozens of deadlocks.
const WRITES: usize = 30;

/// The number of deadlocks, which PostgreSQL reports at the latest when a session ends.
async fn deadlocks(client: &Client) -> i64 {
    let others = "select count(*) from pg_stat_activity \
                  where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
    eventually(|| async {
        let left: i64 = client.query_one(others, &[]).await.expect("counted").get(0);
        if left == 0 { Ok(()) } else { Err(format!("{left} sessions are left")) }
    })
    .await;
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    client.query_one(sql, &[]).await.expect("counted").get(0)
}

async fn create(server: &TestApp, subject: &Subject) -> String {
    server.post(subject.path, &subject.one).await.expect(StatusCode::CREATED).header("location").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_to_the_same_rows_through_two_servers_never_deadlock() {
    for subject in subjects() {
        run_concurrent_writes(&subject).await;
    }
}

async fn run_concurrent_writes(subject: &Subject) {
    let database = Database::migrated().await;
    let client = database.client().await;
    // Commits take longer, so that rows stay locked longer and conflicts are likely.
    let slow = "do $$ begin execute format('alter database %I set commit_delay = 2000', current_database()); \
                execute format('alter database %I set commit_siblings = 0', current_database()); end $$";
    client.batch_execute(slow).await.expect("altered");
    let conninfo = database.conninfo();
    let flags = [&*flag()];
    let mut servers = [TestApp::start_on(&conninfo, &flags).await, TestApp::start_on(&conninfo, &flags).await];
    let mut uuids = Vec::new();
    for _ in 0..ROWS {
        uuids.push(Mutex::new(create(&servers[0], subject).await));
    }
    let uuids = Arc::new(uuids);
    let field = subject.fields().next().expect("one field");
    let patch = json!({field: subject.other[field]}).to_string();
    let patch = &patch;
    join_all((0..CLIENTS).map(|number| {
        let uuids = uuids.clone();
        let servers = &servers;
        async move {
            for turn in 0..WRITES {
                let server = &servers[number % 2];
                // All clients of a server send the same operation at the same time, so that its statements hold many rows; the
                // clients visit the rows in no common order.
                let place = (number * 7919 + turn * 104_729) % ROWS;
                let url = uuids[place].lock().await.clone();
                let answer = match (turn + number % 2) % 5 {
                    0 | 2 => server.put(&url, if turn % 2 == 0 { &subject.one } else { &subject.other }).await,
                    4 => server.delete(&url).await,
                    _ => {
                        let request = server.request(Method::PATCH, &url);
                        send(request.header("content-type", "application/merge-patch+json").body(patch.clone())).await
                    }
                };
                match answer.status {
                    StatusCode::OK | StatusCode::NOT_FOUND => {}
                    StatusCode::NO_CONTENT => *uuids[place].lock().await = create(server, subject).await,
                    other => panic!("{other}: {}", answer.body),
                }
            }
        }
    }))
    .await;
    for server in &mut servers {
        server.stop().await;
    }
    drop(servers);
    assert_eq!(deadlocks(&client).await, 0);
}
