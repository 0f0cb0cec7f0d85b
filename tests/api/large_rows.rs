//! Rows of many kilobytes: no response holds more of them in memory than it may, and lists that are streamed are complete.

use std::fs;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{TestApp, send};

const NOTES: &str = r#"
name = "notes"
title = "Notes"
operations = ["list", "read", "create", "replace", "patch", "bulk"]
history = true
[[column]]
name = "a"
type = "string"
maxLength = 10000
[[column]]
name = "b"
type = "string"
maxLength = 10000
[[column]]
name = "c"
type = "string"
maxLength = 10000
[[column]]
name = "d"
type = "string"
maxLength = 10000
[[column]]
name = "size"
type = "integer"
[urls]
list = "/all-notes"
"#;
/// A row of 40 KB.
const ROW: &str = "insert into notes (uuid, a, b, c, d, size) select gen_random_uuid(), number || repeat('a', 9000), \
    repeat('b', 10000), repeat('c', 10000), repeat('d', 10000), number from generate_series(1, 600) as number";

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_limited_in_bytes_and_a_streamed_list_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("notes.toml"), NOTES).expect("written");
    let app = TestApp::start_with(&[&format!("--resources-dir={}", folder.path().display())]).await;
    app.until_ready().await;
    app.database.as_ref().expect("the test's own").client().await.batch_execute(ROW).await.expect("stored");
    // 23 MB.
    for path in ["/v1/notes?limit=1000", "/v1/notes?limit=1000&order=size.desc"] {
        let problem = app.get(path).await.expect_problem(400, "invalid-query");
        assert!(problem["detail"].as_str().expect("a text").contains("lower limit"), "{path}: {problem}");
    }
    let page = app.get("/v1/notes?limit=200").await;
    assert_eq!(page.expect(StatusCode::OK).json().as_array().expect("rows").len(), 200);
    for path in ["/all-notes", "/all-notes?order=size.desc"] {
        let whole = app.get(path).await;
        let rows = whole.expect(StatusCode::OK).json();
        let mut sizes: Vec<i64> =
            rows.as_array().expect("rows").iter().map(|row| row["size"].as_i64().expect("a number")).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, (1..=600).collect::<Vec<_>>(), "{path}");
    }
    // The chunks of a response with created rows are limited, too.
    let note = |size: usize, length| {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|letter| letter.repeat(length));
        json!({"a": a, "b": b, "c": c, "d": d, "size": size})
    };
    let many: Vec<Value> = (0..50).map(|size| note(size, 3_500)).collect();
    let created = app.request(Method::POST, "/v1/notes").header("prefer", "return=representation").json(&many);
    let created = send(created).await;
    let sizes: Vec<Value> = created
        .expect(StatusCode::CREATED)
        .json()
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["size"].clone())
        .collect();
    assert_eq!(sizes, (0..50).map(Value::from).collect::<Vec<_>>());
    // So is a page of a history.
    let uuid = created.json()[0]["uuid"].as_str().expect("a key").to_owned();
    let path = format!("/v1/notes/{uuid}");
    for first in (0..500).step_by(50) {
        join_all(
            (first..first + 50)
                .map(async |size| app.put(&path, &note(size, 10_000)).await.expect(StatusCode::OK).status),
        )
        .await;
    }
    app.get(&format!("{path}/history?limit=1000")).await.expect_problem(400, "invalid-query");
    let page = app.get(&format!("{path}/history?limit=100")).await;
    assert_eq!(page.expect(StatusCode::OK).json().as_array().expect("entries").len(), 100);
}
