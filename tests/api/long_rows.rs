//! Rows of half a megabyte: pages, chunks and single rows are bounded in bytes, and each row is returned exactly once.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Answer, TestApp, eventually, passenger, send};

const COLUMNS: usize = 50;
const LENGTH: usize = 10_000;
const MIB: usize = 1024 * 1024;

/// A server with a resource of 50 texts, and the directory of its description.
async fn start(flags: &[&str]) -> (TestApp, TempDir) {
    let mut description = "name = \"notes\"\ntitle = \"Notes\"\n\
        operations = [\"list\", \"read\", \"create\", \"replace\", \"patch\", \"bulk\"]\nhistory = true\n\
        [urls]\nlist = \"/all-notes\"\n[[column]]\nname = \"size\"\ntype = \"integer\"\n"
        .to_owned();
    for column in 0..COLUMNS {
        write!(description, "[[column]]\nname = \"t{column}\"\ntype = \"string\"\nmaxLength = {LENGTH}\n")
            .expect("a text");
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("notes.toml"), description).expect("written");
    let flag = format!("--resources-dir={}", folder.path().display());
    let app = TestApp::start_with(&[&[flag.as_str()], flags].concat()).await;
    app.until_ready().await;
    (app, folder)
}

/// Stores rows with the sizes 1 to `rows`, whose texts have `length` characters; returns their URLs.
async fn fill(app: &TestApp, rows: usize, length: usize) -> Vec<String> {
    let client = app.database.as_ref().expect("own database").client().await;
    let (names, values): (Vec<_>, Vec<_>) =
        (0..COLUMNS).map(|column| (format!("t{column}"), format!("repeat('x', {length})"))).unzip();
    let insert = format!(
        "insert into notes (uuid, size, {}) select gen_random_uuid(), n, {} from generate_series(1, {rows}) n returning uuid",
        names.join(", "),
        values.join(", ")
    );
    let rows = client.query(&insert, &[]).await.expect("inserted");
    rows.iter().map(|row| format!("/v1/notes/{}", row.get::<_, uuid::Uuid>(0))).collect()
}

fn note(size: usize, length: usize) -> Value {
    let texts = (0..COLUMNS).map(|column| (format!("t{column}"), json!("x".repeat(length))));
    [("size".to_owned(), json!(size))].into_iter().chain(texts).collect()
}

/// The values of `size`, at a place in each element.
fn sizes(elements: &Value, place: &str) -> Vec<Option<i64>> {
    let elements = elements.as_array().expect("an array").iter();
    elements.map(|element| element.pointer(place).and_then(Value::as_i64)).collect()
}

fn link(answer: &Answer, relation: &str) -> Option<String> {
    let end = format!(">; rel=\"{relation}\"");
    let links = answer.headers.get("link")?.to_str().expect("ASCII");
    links.split(", ").find_map(|link| Some(link.strip_suffix(&*end)?.trim_start_matches('<').to_owned()))
}

/// The sizes on all pages from one on, in the direction of a relation, and the URL of the last one.
async fn pages(app: &TestApp, first: &str, relation: &str, place: &str) -> (Vec<Vec<Option<i64>>>, String) {
    let (mut found, mut url) = (Vec::new(), first.to_owned());
    loop {
        let page = app.get(&url).await;
        assert!(page.expect(StatusCode::OK).body.len() < 5 * MIB, "{url} has {} bytes", page.body.len());
        found.push(sizes(&page.json(), place));
        match link(&page, relation) {
            Some(next) => url = next,
            None => return (found, url),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_long_row_is_on_exactly_one_page_and_in_a_whole_list_once() {
    let (app, _folder) = start(&[]).await;
    fill(&app, 30, LENGTH).await;
    fill(&app, 300, 10).await;
    for order in ["", "&order=size.desc"] {
        let (forward, last) =
            pages(&app, &format!("/v1/notes?limit=1000&select=size,t0{order}"), "next", "/size").await;
        assert_eq!(forward.len(), 1, "short rows are on one page: {last}");
        let (forward, last) = pages(&app, &format!("/v1/notes?limit=200{order}"), "next", "/size").await;
        assert!(forward.len() >= 4, "{order}: {} pages", forward.len());
        let (mut backward, _) = pages(&app, &last, "prev", "/size").await;
        backward.reverse();
        assert_eq!(forward.concat(), backward.concat(), "{order}");
        for path in [format!("/all-notes?{order}"), format!("/all-notes?size=gt.0{order}")] {
            let whole = sizes(&app.get(&path).await.expect(StatusCode::OK).json(), "/size");
            assert_eq!(whole, forward.concat(), "{path}");
            assert_eq!(whole.len(), 330);
        }
    }
    let object = |path| send(app.request(Method::GET, path).header("accept", "application/vnd.pgrst.object+json"));
    object("/v1/notes?size=gt.20").await.expect_problem(406, "not-acceptable");
    object("/v1/notes?size=eq.200").await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_of_a_history_of_long_rows_is_on_exactly_one_page() {
    let (app, _folder) = start(&[]).await;
    let url = app.post("/v1/notes", &note(0, LENGTH)).await.expect(StatusCode::CREATED).header("location").to_owned();
    for size in 1..=20 {
        let patched = send(app.request(Method::PATCH, &url).json(&json!({"size": size}))).await;
        assert_eq!(patched.expect(StatusCode::OK).json()["t49"], "x".repeat(LENGTH));
    }
    // The entry of the creation has no values.
    let (newest_first, last) = pages(&app, &format!("{url}/history"), "next", "/before/size").await;
    let expected: Vec<_> = (0..20).rev().map(Some).chain([None]).collect();
    assert_eq!(newest_first.concat(), expected);
    assert!(newest_first.len() > 2, "{} pages", newest_first.len());
    let (mut back, _) = pages(&app, &last, "prev", "/before/size").await;
    back.reverse();
    assert_eq!(back.concat(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn created_long_rows_are_returned_in_order_and_a_stored_response_is_returned_again() {
    let (app, _folder) = start(&[]).await;
    let rows: Vec<Value> = (0..300).map(|size| note(size, if size % 3 == 0 { 10 } else { 200 })).collect();
    let many = app.request(Method::POST, "/v1/notes").header("prefer", "return=representation").json(&rows);
    let created = send(many).await;
    assert_eq!(sizes(&created.expect(StatusCode::CREATED).json(), "/size"), (0..300).map(Some).collect::<Vec<_>>());
    let once =
        || send(app.request(Method::POST, "/v1/notes").header("idempotency-key", "\"long\"").json(&note(1, 9000)));
    let (first, again) = (once().await, once().await);
    assert_eq!(first.expect(StatusCode::CREATED).body, again.expect(StatusCode::CREATED).body);
    again.header("idempotency-replayed");
}

/// The responses to `count` pipelined requests, which are never read. The kernel buffers up to 4 MiB of them.
async fn unread(app: &TestApp, number: usize, path: &str, count: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let mut stream = socket.connect(app.addr).await.expect("connected");
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.{number}\r\n\r\n");
    stream.write_all(head.repeat(count).as_bytes()).await.expect("sent");
    stream.readable().await.expect("an answer");
    stream
}

async fn used(app: &TestApp, budget: &str) -> usize {
    let metrics = send(app.client.get(format!("http://{}/metrics", app.metrics_addr))).await.body;
    let start = format!("budget_used_bytes{{budget=\"{budget}\"}} ");
    let used = metrics.lines().find_map(|line| line.strip_prefix(&*start));
    used.unwrap_or_else(|| panic!("{metrics}")).parse().expect("bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_long_rows_are_limited_in_total_and_lists_and_rows_do_not_displace_each_other() {
    let (app, _folder) = start(&["--memory-budget=8MiB", "--checkout-timeout-ms=3000"]).await;
    let urls = fill(&app, 64, LENGTH).await;
    let short = app.post("/v1/notes", &note(65, 10)).await.expect(StatusCode::CREATED).header("location").to_owned();
    let passenger = app.create(&passenger()).await;
    // Lists of different clients, all different, of which some are refused.
    let lists = join_all((0..64).map(|number| {
        let path = format!("/{}?size=neq.{}", if number % 2 == 0 { "all-notes" } else { "v1/notes" }, number + 100);
        let app = &app;
        async move { unread(app, number, &path, 1).await }
    }))
    .await;
    assert!(used(&app, "lists").await <= 8 * MIB, "lists use {} bytes", used(&app, "lists").await);
    let refused = eventually_refused(&app, 98, "/v1/notes?size=neq.0&limit=50").await;
    refused.expect_problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    for url in urls.iter().take(8) {
        assert_eq!(app.get(url).await.expect(StatusCode::OK).json()["t0"], "x".repeat(LENGTH));
    }
    for answer in join_all(urls.iter().enumerate().map(|(number, url)| get_from(&app, number, url))).await {
        if answer.status != StatusCode::OK {
            answer.expect_problem(503, "unavailable");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    // One client has a quarter of the memory, and leaves the rest to others.
    let greedy = unread(&app, 99, &urls[0], 20).await;
    eventually_refused(&app, 99, &urls[0]).await.expect_problem(429, "too-many-requests");
    for url in urls.iter().take(8) {
        get_from(&app, 98, url).await.expect(StatusCode::OK);
    }
    drop(greedy);
    drop(lists);
    let rows = join_all(urls.iter().zip(100..108).map(|(url, number)| unread(&app, number, url, 20))).await;
    assert!(used(&app, "rows").await <= 3 * MIB / 2, "rows use {} bytes", used(&app, "rows").await);
    eventually_refused(&app, 98, &urls[0]).await.expect_problem(503, "unavailable");
    let client = app.database.as_ref().expect("own database").client().await;
    let patched = send(app.request(Method::PATCH, &urls[0]).json(&json!({"size": 1000}))).await;
    patched.expect_problem(503, "unavailable");
    let put = app.put(&urls[0], &note(1000, LENGTH)).await;
    put.expect_problem(503, "unavailable");
    let changed = client.query_one("select count(*) from notes where size = 1000", &[]).await.expect("counted");
    assert_eq!(changed.get::<_, i64>(0), 0, "nothing was changed");
    app.get(&format!("/v1/passengers/{passenger}")).await.expect(StatusCode::OK);
    app.get("/v1/notes?select=size&limit=64").await.expect(StatusCode::OK);
    drop(rows);
    eventually(|| async {
        let urls = urls.iter().chain([&short]).enumerate();
        let answers = join_all(urls.map(|(number, url)| get_from(&app, number, url))).await;
        let statuses: HashSet<_> = answers.iter().map(|answer| answer.status).collect();
        if statuses == HashSet::from([StatusCode::OK]) { Ok(()) } else { Err(format!("{statuses:?}")) }
    })
    .await;
}

/// The answer to a client with an address of its own.
async fn get_from(app: &TestApp, number: usize, path: &str) -> Answer {
    send(app.request(Method::GET, path).header("x-forwarded-for", format!("192.0.2.{number}"))).await
}

/// The answer of a request that is refused as soon as unread responses hold the memory.
async fn eventually_refused(app: &TestApp, number: usize, path: &str) -> Answer {
    for _ in 0..50 {
        let answer = get_from(app, number, path).await;
        if answer.status != StatusCode::OK {
            return answer;
        }
    }
    panic!("{path} is never refused");
}
