//! Statements of clients that have disconnected are cancelled in PostgreSQL before their session is reused.

use std::net::SocketAddr;

use futures_util::future::join_all;
use reqwest::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::harness::{TestApp, eventually, passenger};
use crate::pools::{active, until_active};

/// Deadlines longer than any wait for a lock in these tests.
const LONG: &[&str] = &["--statement-timeout-ms=600000", "--checkout-timeout-ms=60000", "--bulk-timeout-ms=600000"];

/// Locks every table of the resources in access exclusive mode until `rollback`.
async fn lock_all(app: &TestApp) -> Client {
    let client = app.database.as_ref().expect("own database").client().await;
    let lock = "begin; lock table passengers, steps, air_quality in access exclusive mode";
    client.batch_execute(lock).await.expect("locked");
    client
}

/// Sends a request on its own connection; dropping the connection abandons the request.
async fn send(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut connection = TcpStream::connect(addr).await.expect("connected");
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}{length}\r\n{body}");
    connection.write_all(request.as_bytes()).await.expect("sent");
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_disconnected_clients_are_cancelled() {
    let app = TestApp::start_with(LONG).await;
    let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_all(&app).await;
    let one = passenger().to_string();
    let many = format!("[{one},{one}]");
    let step = r#"{"component":"api","version":"1","owner":"me","status":"started"}"#;
    let json = "content-type: application/json\r\n";
    let keyed = "content-type: application/json\r\nidempotency-key: 12345678\r\n";
    let requests = [
        ("GET", "/passengerlist", "", ""),
        ("GET", "/passengerlist?name=ilike.*a*", "", ""),
        ("GET", "/v1/passengers?order=name", "", ""),
        ("GET", "/v1/passengers", "prefer: count=exact\r\n", ""),
        ("GET", "/v1/passengers", "prefer: count=estimated\r\n", ""),
        ("GET", "/v1/passengers/stats?by=sex", "", ""),
        ("GET", "/v1/steps", "", ""),
        ("GET", "/v1/steps/durations", "", ""),
        ("GET", "/v1/steps/durations?summary=true&format=csv", "", ""),
        ("GET", "/v1/air-quality?entity=x", "", ""),
        ("GET", url.as_str(), "", ""),
        ("PUT", url.as_str(), json, one.as_str()),
        ("PATCH", url.as_str(), "content-type: application/merge-patch+json\r\n", r#"{"age":3}"#),
        ("DELETE", url.as_str(), "", ""),
        ("POST", "/v1/passengers", json, one.as_str()),
        ("POST", "/v1/passengers", keyed, one.as_str()),
        ("POST", "/v1/passengers", json, many.as_str()),
        ("POST", "/v1/passengers", keyed, many.as_str()),
        ("POST", "/v1/steps", json, step),
        ("POST", "/v1/steps", keyed, step),
    ];
    for (method, path, headers, body) in requests {
        let connection = send(app.addr, method, path, headers, body).await;
        eventually(|| async {
            if active(&watcher).await == 1 { Ok(()) } else { Err(format!("{method} {path} {headers} has not started")) }
        })
        .await;
        drop(connection);
        eventually(|| async {
            if active(&watcher).await == 0 { Ok(()) } else { Err(format!("{method} {path} {headers} goes on")) }
        })
        .await;
    }
    locker.batch_execute("rollback").await.expect("unlocked");
    app.get(&url).await.expect(StatusCode::OK);
    let stored: i64 = watcher.query_one("select count(*) from passengers", &[]).await.expect("a row").get(0);
    assert_eq!(stored, 1, "a cancelled create was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_streamed_list_is_cancelled_when_its_client_disconnects() {
    let app = TestApp::start_with(LONG).await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let many = "insert into passengers select gen_random_uuid(), true, 1, 'n' || n, 'male', null, 0, 0, 1 \
                from generate_series(1, 5000) n";
    watcher.batch_execute(many).await.expect("inserted");
    let mut reader = app.client.get(app.url("/passengerlist?order=name")).send().await.expect("an answer");
    let locker = lock_all(&app).await;
    // The statement that reads the next chunk waits for the lock.
    let waits = eventually(|| async { if active(&watcher).await > 0 { Ok(()) } else { Err("none waits".to_owned()) } });
    tokio::pin!(waits);
    loop {
        tokio::select! {
            () = &mut waits => break,
            chunk = reader.chunk() => drop(chunk.expect("a chunk").expect("the list has not ended")),
        }
    }
    drop(reader);
    until_active(&watcher, 0).await;
    locker.batch_execute("rollback").await.expect("unlocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_abandoned_lists_use_no_more_connections_than_the_pool_has() {
    let app = TestApp::start_with(LONG).await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_all(&app).await;
    let connections = "select count(*) from pg_stat_activity where datname = current_database() \
                       and application_name = 'pycrudapi' and pid not in (pg_backend_pid(), $1)";
    let locking: i32 = locker.query_one("select pg_backend_pid()", &[]).await.expect("a row").get(0);
    let mut most: i64 = 0;
    for round in 0..14 {
        let paths: Vec<String> = (0..50).map(|n| format!("/v1/passengers?fare=neq.{}", round * 50 + n)).collect();
        let sent = join_all(paths.iter().map(|path| send(app.addr, "GET", path, "", ""))).await;
        eventually(|| async {
            if active(&watcher).await > 0 { Ok(()) } else { Err("no list has started".to_owned()) }
        })
        .await;
        drop(sent);
        let now: i64 = watcher.query_one(connections, &[&locking]).await.expect("a row").get(0);
        most = most.max(now);
    }
    until_active(&watcher, 0).await;
    assert!(most <= 12, "{most} connections: the pool has 10, the readiness probe 1, the change listener 1");
    locker.batch_execute("rollback").await.expect("unlocked");
    app.get("/v1/passengers").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_session_whose_statement_was_cancelled_is_reused() {
    let app = TestApp::start_with(&[LONG, &["--pool-size=1"]].concat()).await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let session = "select pid from pg_stat_activity where datname = current_database() and state = 'active' \
                   and application_name = 'pycrudapi' and pid <> pg_backend_pid()";
    let mut pids = Vec::new();
    for path in ["/v1/passengers?fare=neq.1", "/v1/passengers?fare=neq.2"] {
        let locker = lock_all(&app).await;
        let connection = send(app.addr, "GET", path, "", "").await;
        until_active(&watcher, 1).await;
        pids.push(watcher.query_one(session, &[]).await.expect("a row").get::<_, i32>(0));
        drop(connection);
        until_active(&watcher, 0).await;
        locker.batch_execute("rollback").await.expect("unlocked");
    }
    assert_eq!(pids[0], pids[1]);
}
