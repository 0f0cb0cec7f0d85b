//! Deployment steps: recording, lists, durations, and a million of them.

mod durations;
mod formulas;
mod lists;
mod recording;
mod scale;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Answer, TestApp, send};

const FIELDS: [&str; 4] = ["component", "version", "owner", "status"];
const HEADER: &str = "id,ts,component,version,owner,status";
const DURATIONS_HEADER: &str = "id,component,version,status,owner,start,end,duration_seconds";

async fn record(app: &TestApp, [component, version, owner, status]: [&str; 4]) -> Value {
    let values = [("component", component), ("version", version), ("owner", owner), ("status", status)];
    let answer = send(app.request(Method::POST, "/v1/steps").query(&values)).await;
    answer.expect(StatusCode::CREATED).json()
}

async fn get(app: &TestApp, path: &str, parameters: &[(&str, &str)]) -> Answer {
    send(app.request(Method::GET, path).query(parameters)).await
}

/// The rows of a JSON answer.
#[track_caller]
fn rows(answer: &Answer, name: &str) -> Vec<Value> {
    let list = answer.expect(StatusCode::OK).json();
    list[name].as_array().unwrap_or_else(|| panic!("no {name}: {}", answer.body)).clone()
}

/// The rows of a CSV answer, header first.
#[track_caller]
fn table(answer: &Answer) -> Vec<Vec<String>> {
    assert!(answer.expect(StatusCode::OK).header("content-type").starts_with("text/csv;"), "{}", answer.body);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(answer.body.as_bytes());
    reader.records().map(|row| row.expect("valid CSV").iter().map(str::to_owned).collect()).collect()
}

fn statuses(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["status"].as_str().expect("a status")).collect()
}

/// The parameters of a problem, in order.
#[track_caller]
fn parameters(answer: &Answer) -> Vec<String> {
    let problem = answer.expect_problem(400, "invalid-query");
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", answer.body));
    let names: Vec<String> =
        errors.iter().map(|error| error["parameter"].as_str().expect("a name").to_owned()).collect();
    assert!(names.iter().all(|name| problem["detail"].as_str().is_some_and(|detail| detail.contains(name))));
    names
}

/// Steps at given times, in the order of their ids, which begin at 1.
async fn insert(app: &TestApp, steps: &[(&str, &str, &str, &str, &str)]) {
    let client = app.database.as_ref().expect("own database").client().await;
    let sql =
        "insert into steps (ts, component, version, owner, status) values ($1::text::timestamptz, $2, $3, $4, $5)";
    let statement = client.prepare(sql).await.expect("prepared");
    for (ts, component, version, owner, status) in steps {
        client.execute(&statement, &[ts, component, version, owner, status]).await.expect("inserted");
    }
}

const HISTORY: &[(&str, &str, &str, &str, &str)] = &[
    ("2026-01-31 11:59:59.999999Z", "api", "1", "ann", "build"),
    ("2026-01-31 12:00:00Z", "api", "1", "bob", "test"),
    ("2026-01-31 12:00:00Z", "web", "1", "ann", "build"),
    ("2026-01-31 12:00:01.5Z", "api", "1", "ann", "deploy"),
    ("2026-01-31 12:00:02Z", "api", "2", "bob", "build"),
    ("2026-01-31 12:00:02Z", "api", "1", "ann", "check"),
    ("2026-01-31 12:00:02Z", "api", "1", "ann", "done"),
];
