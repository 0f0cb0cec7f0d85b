//! Many slow clients at once: their total memory is bounded, and other clients are still answered.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use reqwest::{Body, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, TestApp, eventually, passenger, read, send};

const HEADER: &str = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n";
const ROW: &str = "true,1,A name of usual length,male,,0,0,7.25\n";
const MIB: usize = 1024 * 1024;

/// The smallest budget: 4 MiB for bodies, 4 MiB for lists, and a quarter of each for one address.
const SMALLEST: &str = "--memory-budget=8MiB";

/// The address of a client, as forwarded by nginx.
fn address(number: usize) -> String {
    format!("192.0.2.{number}")
}

/// A request whose head and part of whose body were sent, on its own connection that is never read.
async fn begin_request(app: &TestApp, head: &str, address: String, body: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(app.addr).await.expect("connected");
    let head = format!("{head}Host: localhost\r\nX-Forwarded-For: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    stream
}

/// A one-megabyte body of which only the beginning has arrived.
async fn unfinished(app: &TestApp, address: String) -> TcpStream {
    let head = "POST /v1/passengers HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n";
    begin_request(app, head, address, &[b' '; 1000]).await
}

/// A list response that is never read.
async fn unread(app: &TestApp, address: String, query: &str) -> TcpStream {
    let connection = begin_request(app, &format!("GET /passengerlist{query} HTTP/1.1\r\n"), address, b"").await;
    // From now on it holds its share of memory, or it was refused.
    connection.readable().await.expect("an answer");
    connection
}

async fn post(app: &TestApp, address: String, media_type: &str, body: impl Into<Body>) -> Answer {
    let request = app.request(Method::POST, "/v1/passengers").header("x-forwarded-for", address);
    send(request.header("content-type", media_type).header("expect", "100-continue").body(body)).await
}

async fn post_one(app: &TestApp, address: String, blanks: usize) -> Answer {
    post(app, address, "application/json", passenger().to_string() + &" ".repeat(blanks)).await
}

async fn get(app: &TestApp, address: String, path: &str) -> Answer {
    send(app.request(Method::GET, path).header("x-forwarded-for", address)).await
}

/// Checks that a list is refused; an accepted list may wait for its turn while other responses are not read.
async fn is_refused(app: &TestApp, address: String, path: &str, status: u16, code: &str) -> Result<(), String> {
    let request = app.request(Method::GET, path).header("x-forwarded-for", address);
    let response = request.send().await.expect("an answer");
    if response.status() == StatusCode::OK { Err("200".to_owned()) } else { is(&read(response).await, status, code) }
}

fn is(answer: &Answer, status: u16, code: &str) -> Result<(), String> {
    if answer.status.as_u16() != status {
        return Err(format!("{} {}", answer.status, answer.body));
    }
    answer.expect_problem(status, code);
    assert_eq!(answer.header("retry-after"), "1");
    Ok(())
}

async fn fill(app: &TestApp, rows: usize) {
    let client = app.database.as_ref().expect("own database").client().await;
    let insert = format!(
        "insert into passengers (uuid, survived, passenger_class, name, sex, siblings_or_spouses_aboard, \
         parents_or_children_aboard, fare) select gen_random_uuid(), true, 1, 'A name of usual length ' || n, 'male', \
         0, 0, 7.25 from generate_series(1, {rows}) n"
    );
    client.batch_execute(&insert).await.expect("inserted");
    client.batch_execute("analyze passengers").await.expect("analysed");
}

#[tokio::test]
async fn unfinished_bodies_are_limited_per_client_and_in_total_and_small_bodies_are_accepted() {
    let app = TestApp::start_with(&[SMALLEST, "--body-min-rate=0"]).await;
    let mut held = vec![unfinished(&app, address(1)).await];
    eventually(|| async { is(&post_one(&app, address(1), 900_000).await, 429, "too-many-requests") }).await;
    post_one(&app, address(1), 0).await.expect(StatusCode::CREATED);
    post_one(&app, address(2), 900_000).await.expect(StatusCode::CREATED);
    for number in 2..=4 {
        held.push(unfinished(&app, address(number)).await);
    }
    eventually(|| async { is(&post_one(&app, address(9), 900_000).await, 503, "unavailable") }).await;
    // A body without Content-Length that exceeds the budget while it arrives.
    let pieces = stream::iter((0..900).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
    is(&post(&app, address(9), "application/json", Body::wrap_stream(pieces)).await, 503, "unavailable")
        .expect("refused");
    post_one(&app, address(9), 0).await.expect(StatusCode::CREATED);
    drop(held);
    eventually(|| async {
        let answer = post_one(&app, address(1), 900_000).await;
        if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_lists_leave_memory_for_lists_of_other_clients() {
    let app = TestApp::start_with(&[SMALLEST, "--checkout-timeout-ms=5000"]).await;
    fill(&app, 50_000).await;
    // Distinct lists, because the first chunks of identical lists would be shared.
    let attack = (1..=200).map(|number| {
        let query = format!("?name=neq.{number}");
        let app = &app;
        async move { unread(app, address(1), &query).await }
    });
    let held = join_all(attack).await;
    eventually(|| is_refused(&app, address(1), "/passengerlist", 429, "too-many-requests")).await;
    let whole = get(&app, address(2), "/passengerlist?select=fare").await;
    assert_eq!(whole.expect(StatusCode::OK).json().as_array().map(Vec::len), Some(50_000));
    drop(held);
    eventually(|| async {
        let answer = get(&app, address(1), "/passengerlist?select=fare").await;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_lists_of_many_addresses_are_limited_in_total_and_pages_are_answered() {
    let app = TestApp::start_with(&[SMALLEST, "--checkout-timeout-ms=5000"]).await;
    fill(&app, 50_000).await;
    let attack = (0..200).map(|number| {
        let query = format!("?order=fare&name=neq.{number}");
        let app = &app;
        async move { unread(app, address(number % 50 + 1), &query).await }
    });
    let held = join_all(attack).await;
    let page = get(&app, address(99), "/v1/passengers").await;
    assert_eq!(page.expect(StatusCode::OK).json().as_array().map(Vec::len), Some(100));
    let metrics = app.client.get(format!("http://{}/metrics", app.metrics_addr)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("a text");
    let used = metrics.lines().find_map(|line| line.strip_prefix("budget_used_bytes{budget=\"lists\"} "));
    let used: usize = used.unwrap_or_else(|| panic!("{metrics}")).parse().expect("bytes");
    assert!(used <= 4 * MIB, "lists use {used} bytes, more than their half of the budget");
    drop(held);
}

/// The beginning of a CSV of passengers that exceeds the in-memory limit and never ends.
async fn slow_upload(app: &TestApp, address: String) -> TcpStream {
    let head = format!("POST /v1/passengers HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n", 4 * MIB);
    let begun = HEADER.to_owned() + &ROW.repeat(2 * MIB / ROW.len());
    begin_request(app, &head, address, begun.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_leave_bulk_creation_available_to_others() {
    let app = TestApp::start_with(&["--pool-size=4", "--list-pool-size=1"]).await;
    let slow = join_all((0..20).map(|number| {
        let app = &app;
        async move { slow_upload(app, address(number % 4 + 1)).await }
    }))
    .await;
    let client = app.database.as_ref().expect("own database").client().await;
    for rows in [10, 3 * MIB / ROW.len()] {
        let body = HEADER.to_owned() + &ROW.repeat(rows);
        // One of the slow uploads may be using its half second at this moment.
        eventually(|| async {
            let answer = post(&app, address(9), "text/csv", body.clone()).await;
            if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and query like 'copy%' \
                   and state <> 'idle'";
    eventually(|| async {
        let row = client.query_one(waiting, &[]).await.expect("queried");
        if row.get::<_, i64>(0) == 0 { Ok(()) } else { Err("a COPY waits for its sender".to_owned()) }
    })
    .await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_is_stored_once_it_is_complete() {
    let app = TestApp::start_with(&["--pool-size=4"]).await;
    let rows = 3 * MIB / ROW.len();
    let all = HEADER.to_owned() + &ROW.repeat(rows);
    let (begun, rest) = all.split_at(2 * MIB);
    let head = format!(
        "POST /v1/passengers HTTP/1.1\r\nContent-Type: text/csv\r\nConnection: close\r\nContent-Length: {}\r\n",
        all.len()
    );
    let mut upload = begin_request(&app, &head, address(1), begun.as_bytes()).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // the test is about a sender that pauses
    upload.write_all(rest.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.contains("201 Created") && answer.ends_with(&format!("{{\"count\":{rows}}}")), "{answer}");
    let client = app.database.as_ref().expect("own database").client().await;
    let stored = client.query_one("select count(*) from passengers", &[]).await.expect("counted");
    assert_eq!(usize::try_from(stored.get::<_, i64>(0)).ok(), Some(rows), "stored once");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_blocked_in_postgres_leave_connections_for_other_requests() {
    let app = TestApp::start_with(&["--pool-size=5", "--list-pool-size=1", "--checkout-timeout-ms=200"]).await;
    let uuid = app.create(&passenger()).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in share mode").await.expect("locked");
    let body = HEADER.to_owned() + ROW;
    let mut uploads: Vec<_> =
        (1..=8).map(|number| Box::pin(post(&app, address(number), "text/csv", body.clone()))).collect();
    // All but two are refused while those two wait.
    for _ in 0..6 {
        let (refused, _, rest) = futures_util::future::select_all(uploads).await;
        is(&refused, 503, "unavailable").expect("refused");
        uploads = rest;
    }
    get(&app, address(9), &format!("/v1/passengers/{uuid}")).await.expect(StatusCode::OK);
    client.batch_execute("commit").await.expect("unlocked");
    for stored in join_all(uploads).await {
        stored.expect(StatusCode::CREATED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_has_at_most_one_upload_being_stored() {
    let app = TestApp::start_with(&["--pool-size=5", "--list-pool-size=1", "--checkout-timeout-ms=200"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in share mode").await.expect("locked");
    let body = HEADER.to_owned() + ROW;
    let uploads = [1, 1].map(|number| Box::pin(post(&app, address(number), "text/csv", body.clone())));
    let (refused, _, first) = futures_util::future::select_all(uploads).await;
    is(&refused, 429, "too-many-requests").expect("refused");
    let other = Box::pin(post(&app, address(2), "text/csv", body.clone()));
    client.batch_execute("commit").await.expect("unlocked");
    other.await.expect(StatusCode::CREATED);
    for stored in join_all(first).await {
        stored.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn an_unusable_spool_directory_refuses_long_bodies_and_accepts_short_ones() {
    let app = TestApp::start_with(&["--spool-dir=/nonexistent"]).await;
    let long = HEADER.to_owned() + &ROW.repeat(2 * MIB / ROW.len());
    is(&post(&app, address(1), "text/csv", long).await, 503, "unavailable").expect("refused");
    post(&app, address(1), "text/csv", HEADER.to_owned() + ROW).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn long_bodies_have_a_disk_budget() {
    let app = TestApp::start_with(&["--spool-bytes=8MiB"]).await;
    let head = |length: usize| {
        format!("POST /v1/passengers HTTP/1.1\r\nContent-Type: text/csv\r\nContent-Length: {length}\r\n")
    };
    let mut held = vec![begin_request(&app, &head(3 * MIB), address(1), HEADER.as_bytes()).await];
    let long = HEADER.to_owned() + &ROW.repeat(2 * MIB / ROW.len());
    eventually(|| async { is(&post(&app, address(1), "text/csv", long.clone()).await, 429, "too-many-requests") })
        .await;
    post(&app, address(2), "text/csv", long.clone()).await.expect(StatusCode::CREATED);
    held.push(begin_request(&app, &head(4 * MIB), address(2), HEADER.as_bytes()).await);
    eventually(|| async { is(&post(&app, address(3), "text/csv", long.clone()).await, 503, "unavailable") }).await;
    drop(held);
}

#[tokio::test]
async fn a_size_limit_applies_to_the_sum_of_all_chunks() {
    let app = TestApp::start_with(&["--max-body-bytes=2048", "--body-timeout-ms=1500"]).await;
    let small = || stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100])));
    let trickle = || {
        stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await; // the test is about a slow sender
            Some((Ok::<_, std::io::Error>(vec![b' ']), ()))
        })
    };
    let uuid = app.create(&passenger()).await;
    for (method, path, media_type) in [
        (Method::POST, "/v1/passengers".to_owned(), "application/json"),
        (Method::POST, "/postpassenger".to_owned(), "application/json"),
        (Method::PUT, format!("/v1/passengers/{uuid}"), "application/json"),
        (Method::PATCH, format!("/v1/passengers/{uuid}"), "application/merge-patch+json"),
        (Method::POST, "/v1/steps".to_owned(), "application/json"),
    ] {
        let request = |body| app.request(method.clone(), &path).header("content-type", media_type).body(body);
        send(request(Body::wrap_stream(small()))).await.expect_problem(413, "body-too-large");
        send(request(Body::wrap_stream(trickle()))).await.expect_problem(408, "request-timeout");
    }
}

/// Texts of a row: the longest rows that a description allows have about a megabyte.
const TEXTS: usize = 90;

/// A description with many long texts, and a row of it.
fn long_rows() -> (String, String) {
    let mut description = "name = \"notes\"\ntitle = \"Notes\"\noperations = [\"create\"]\n".to_owned();
    let mut row = serde_json::Map::new();
    for name in (0..TEXTS).map(|number| format!("text{number}")) {
        description += &format!("[[column]]\nname = \"{name}\"\ntype = \"string\"\nmaxLength = 10000\n");
        row.insert(name, "a".repeat(10_000).into());
    }
    (description, serde_json::Value::from(row).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_replays_of_long_responses_are_limited_per_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let (description, body) = long_rows();
    std::fs::write(folder.path().join("notes.toml"), description).expect("written");
    let folder = format!("--resources-dir={}", folder.path().display());
    let app = TestApp::start_with(&[SMALLEST, &folder, "--checkout-timeout-ms=200"]).await;
    app.until_ready().await;
    let head = "Content-Type: application/json\r\nIdempotency-Key: k\r\n";
    let head = format!("POST /v1/notes HTTP/1.1\r\n{head}Content-Length: {}\r\n", body.len());
    let retry = |number| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        let request = headers
            .iter()
            .fold(app.request(Method::POST, "/v1/notes"), |request, (name, value)| request.header(*name, *value));
        send(request.header("x-forwarded-for", address(number)).body(body.clone()))
    };
    let first = retry(1).await;
    first.expect(StatusCode::CREATED);
    let again = retry(1).await;
    again.expect(StatusCode::CREATED);
    assert_eq!((again.header("idempotency-replayed"), &again.body), ("true", &first.body));
    // A response that is not read holds its memory, once the kernel's buffers are full of those before it.
    let (mut held, requests) = (begin_request(&app, &head, address(1), body.as_bytes()).await, [head, body.clone()]);
    let sending = tokio::spawn(async move {
        let [head, body] = requests;
        let again = format!("{head}Host: localhost\r\nX-Forwarded-For: {}\r\n\r\n{body}", address(1));
        while held.write_all(again.as_bytes()).await.is_ok() {}
    });
    eventually(|| async { is(&retry(1).await, 429, "too-many-requests") }).await;
    retry(2).await.expect(StatusCode::CREATED);
    sending.abort();
    eventually(|| async {
        let answer = retry(1).await;
        if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
    })
    .await;
}
