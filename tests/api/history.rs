//! Histories: every change of every resource under test has one entry with who made it, when, and the previous state.

mod changes;
mod past;
mod restoring;
mod values;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, send};
use crate::subjects::{Subject, flag};

/// A server with all resources under test, once their tables exist.
async fn start() -> TestApp {
    let app = TestApp::start_with(&[&flag()]).await;
    app.until_ready().await;
    app
}

/// Creates a row and returns its URL.
async fn create(app: &TestApp, path: &str, row: &Value) -> String {
    app.post(path, row).await.expect(StatusCode::CREATED).header("location").to_owned()
}

/// The version in the ETag of a response.
#[track_caller]
fn version(answer: &Answer) -> i64 {
    answer.header("etag").trim_matches('"').parse().expect("a version")
}

/// The complete history of a row, newest first, page by page.
async fn history(app: &TestApp, url: &str) -> Vec<Value> {
    let (mut entries, mut next) = (Vec::new(), Some(format!("{url}/history?limit=7")));
    while let Some(page) = next {
        let answer = app.get(&page).await;
        answer.expect(StatusCode::OK);
        entries.extend(answer.json().as_array().expect("an array").clone());
        next = link(&answer, "next");
    }
    entries
}

/// The target of a pagination link.
fn link(answer: &Answer, relation: &str) -> Option<String> {
    let links = answer.headers.get("link")?.to_str().expect("ASCII");
    let end = format!("; rel=\"{relation}\"");
    let found = links.split(", ").find_map(|link| link.strip_suffix(&*end));
    found.map(|link| link.trim_matches(['<', '>']).to_owned())
}

/// The operations of a history, oldest first.
fn operations(entries: &[Value]) -> Vec<&str> {
    entries.iter().rev().map(|entry| entry["operation"].as_str().expect("a text")).collect()
}

async fn restore(app: &TestApp, url: &str, body: Value) -> Answer {
    app.post(&format!("{url}/restore"), &body).await
}

async fn patch(app: &TestApp, url: &str, body: &Value) -> Answer {
    app.conditional(Method::PATCH, url, &[], Some(body.clone())).await
}

/// A change of one field.
fn part(subject: &Subject) -> Value {
    let field = subject.fields().next().expect("one field");
    json!({field: subject.other[field]})
}

/// The number of history entries of all rows.
async fn entries(app: &TestApp, subject: &Subject) -> i64 {
    let table = subject.path.trim_start_matches("/v1/");
    let client = app.database.as_ref().expect("own database").client().await;
    client.query_one(&format!("select count(*) from {table}_history"), &[]).await.expect("counted").get(0)
}

/// The number of history entries of one request.
async fn entries_of(app: &TestApp, subject: &Subject, request_id: &str) -> i64 {
    let table = subject.path.trim_start_matches("/v1/");
    let client = app.database.as_ref().expect("own database").client().await;
    let count = format!("select count(*) from {table}_history where request_id = $1");
    client.query_one(&count, &[&request_id]).await.expect("counted").get(0)
}

async fn post_as(app: &TestApp, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
    let mut request = app.request(Method::POST, path).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request).await
}
