//! Writes that meet on the same rows never wait for each other in a circle.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::harness::{Database, TestApp, eventually, passenger, passenger_with, send};

const CLIENTS: usize = 128;
const ROWS: usize = 200;
/// Each client's; without an order of locks, deadlocks come in tens.
const WRITES: usize = 60;

/// Counted when a session ends, at the latest.
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

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_many_clients_to_the_same_rows_through_two_servers_never_deadlock() {
    let database = Database::migrated().await;
    let client = database.client().await;
    // Commits take longer, and so long a statement's rows are locked: what can meet does.
    let slow = "do $$ begin execute format('alter database %I set commit_delay = 2000', current_database()); \
                execute format('alter database %I set commit_siblings = 0', current_database()); end $$";
    client.batch_execute(slow).await.expect("altered");
    let conninfo = database.conninfo();
    let mut servers = [TestApp::start_on(&conninfo, &[]).await, TestApp::start_on(&conninfo, &[]).await];
    let mut uuids = Vec::new();
    for _ in 0..ROWS {
        uuids.push(Mutex::new(servers[0].create(&passenger()).await));
    }
    let uuids = Arc::new(uuids);
    join_all((0..CLIENTS).map(|number| {
        let uuids = uuids.clone();
        let servers = &servers;
        async move {
            for turn in 0..WRITES {
                let server = &servers[number % 2];
                // All clients of a server do the same at the same time, so that its statements hold many rows; the steps
                // through the rows have no order.
                let place = (number * 7919 + turn * 104_729) % ROWS;
                let url = format!("/v1/passengers/{}", uuids[place].lock().await);
                let answer = match (turn + number % 2) % 5 {
                    0 | 2 => server.put(&url, &passenger_with("name", format!("{number} {turn}"))).await,
                    4 => server.delete(&url).await,
                    _ => {
                        let request = server.request(Method::PATCH, &url);
                        send(request.header("content-type", "application/merge-patch+json").body(r#"{"age":30}"#)).await
                    }
                };
                match answer.status {
                    StatusCode::OK | StatusCode::NOT_FOUND => {}
                    StatusCode::NO_CONTENT => *uuids[place].lock().await = server.create(&passenger()).await,
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
