//! Bulk creation of passengers: all rows or none, in each format.

use futures_util::stream;
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, passenger, passenger_with, send};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
const HEADER: &str = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare";

async fn post(app: &TestApp, media_type: &str, body: impl Into<Body>) -> Answer {
    send(app.request(Method::POST, "/v1/passengers").header("content-type", media_type).body(body)).await
}

async fn count(app: &TestApp) -> usize {
    app.get("/passengerlist").await.json().as_array().expect("an array").len()
}

fn crowd(count: usize) -> Vec<Value> {
    let one = |number| passenger_with("name", format!("Number {number}, \"of\" {count}"));
    (0..count).map(one).collect()
}

/// The same passengers in each format.
fn bodies(passengers: &[Value]) -> [(&'static str, String); 3] {
    let lines = |line: &dyn Fn(&Value) -> String| passengers.iter().map(line).collect::<String>();
    let row = |passenger: &Value| {
        let cells = HEADER.split(',').map(|name| match &passenger[name] {
            Value::Null => String::new(),
            Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
            other => other.to_string(),
        });
        cells.collect::<Vec<_>>().join(",") + "\n"
    };
    [
        (JSON, json!(passengers).to_string()),
        (CSV, format!("{HEADER}\n{}", lines(&row))),
        (NDJSON, lines(&|passenger| format!("{passenger}\n"))),
    ]
}

/// The errors of a problem: line, field, detail.
#[track_caller]
fn faults(answer: &Answer) -> Vec<(u64, String, String)> {
    let problem = answer.expect_problem(422, "invalid-fields");
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", answer.body));
    let text = |error: &Value, key: &str| error[key].as_str().expect("a text").to_owned();
    errors
        .iter()
        .map(|error| (error["line"].as_u64().expect("a line"), text(error, "field"), text(error, "detail")))
        .collect()
}

#[tokio::test]
async fn many_passengers_are_created_in_each_format() {
    let app = TestApp::start().await;
    for (index, (media_type, body)) in bodies(&crowd(2500)).into_iter().enumerate() {
        let answer = post(&app, media_type, body).await;
        assert_eq!(answer.expect(StatusCode::CREATED).json(), json!({"count": 2500}), "{media_type}");
        assert!(answer.headers.get("location").is_none() && answer.headers.get("preference-applied").is_none());
        assert_eq!(count(&app).await, 2500 * (index + 1));
    }
    assert_eq!(post(&app, JSON, " [ ]").await.expect(StatusCode::OK).json(), json!({"count": 0}));
    let names = app.get("/passengerlist?select=name").await.json();
    let expected: Vec<Value> = crowd(2500).iter().map(|passenger| json!({"name": passenger["name"]})).collect();
    for (index, name) in names.as_array().expect("an array").iter().enumerate() {
        assert_eq!(*name, expected[index % 2500]);
    }
}

#[tokio::test]
async fn stored_rows_are_returned_with_prefer_representation() {
    let app = TestApp::start().await;
    let crowd = crowd(1234);
    for (media_type, body) in bodies(&crowd) {
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", media_type);
        let answer = send(request.header("prefer", "return=representation").body(body)).await;
        let stored = answer.expect(StatusCode::CREATED).json();
        assert_eq!(answer.header("preference-applied"), "return=representation");
        for (stored, sent) in stored.as_array().expect("an array").iter().zip(&crowd) {
            let uuid = stored["uuid"].as_str().expect("a uuid");
            assert_eq!((&stored["name"], &stored["fare"]), (&sent["name"], &sent["fare"]));
            assert_eq!(uuid.len(), 36);
        }
        assert_eq!(stored.as_array().map(Vec::len), Some(1234));
    }
    let request = app.request(Method::POST, "/v1/passengers").header("accept", CSV).json(&crowd[..2]);
    let table = send(request.header("prefer", "return=representation")).await;
    assert_eq!(table.expect(StatusCode::CREATED).body.lines().count(), 3);
    let minimal =
        send(app.request(Method::POST, "/v1/passengers").header("prefer", "return=minimal").json(&crowd[..2])).await;
    assert_eq!(minimal.header("preference-applied"), "return=minimal");
    assert_eq!(minimal.json(), json!({"count": 2}));
}

#[tokio::test]
async fn one_invalid_row_rejects_all_and_every_invalid_row_is_reported() {
    let app = TestApp::start().await;
    // Enough valid rows before the invalid ones that PostgreSQL has received some of them.
    let mut crowd = crowd(4000);
    crowd[3000]["age"] = json!(200);
    crowd[3000]["sex"] = json!("other");
    crowd[3999]["fare"] = json!(-1);
    for (media_type, body) in bodies(&crowd) {
        let answer = post(&app, media_type, body).await;
        let found = faults(&answer);
        let line = |index: u64| match media_type {
            JSON => 1,
            CSV => index + 2,
            _ => index + 1,
        };
        let lines: Vec<_> = found.iter().map(|(line, field, _)| (*line, field.as_str())).collect();
        // For a CSV row only the first error is reported.
        let expected = if media_type == CSV {
            vec![(line(3000), "sex"), (line(3999), "fare")]
        } else {
            vec![(line(3000), "age"), (line(3000), "sex"), (line(3999), "fare")]
        };
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        let mut wanted = expected.clone();
        wanted.sort_unstable();
        assert_eq!(sorted, wanted, "{media_type}");
        let pointer = &answer.json()["errors"][0]["pointer"];
        assert_eq!(pointer.is_string(), media_type == JSON, "{pointer}");
        assert_eq!(count(&app).await, 0);
    }
    // The pooled connections remain usable.
    app.create(&passenger()).await;
}

#[tokio::test]
async fn a_hundred_errors_are_listed_and_all_are_counted() {
    let app = TestApp::start().await;
    let crowd: Vec<Value> = (0..250).map(|_| passenger_with("passengerClass", 7)).collect();
    let answer = post(&app, JSON, json!(crowd).to_string()).await;
    assert_eq!(faults(&answer).len(), 100);
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("250 errors in 250 rows; the first 100 are listed; nothing was stored"), "{detail}");
    assert_eq!(answer.json()["errors"][99]["pointer"], "/99/passengerClass");
}

#[tokio::test]
async fn invalid_rows_are_refused_in_each_format() {
    let app = TestApp::start().await;
    let good = passenger();
    let named = passenger_with("uuid", "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10");
    let row = "true,1,A,male,,0,0,1";
    for (media_type, body, line, field, detail) in [
        (JSON, json!([good, named]).to_string(), 1, "uuid", "made by the server"),
        (NDJSON, format!("{good}\n{named}"), 2, "uuid", "made by the server"),
        (CSV, format!("uuid,{HEADER}\n"), 1, "uuid", "leave the column out"),
        (CSV, format!("{HEADER},cabin\n{row},x\n"), 1, "", "unknown column \"cabin\""),
        (CSV, format!("{HEADER}\n{row}\n{row},2\n"), 3, "", "must have 8 cells"),
        (
            CSV,
            format!("{HEADER}\n{row}\nmaybe,1,A,male,,0,0,1\n"),
            3,
            "survived",
            "must be true, false, yes, no, on, off, 1 or 0",
        ),
        (JSON, "[\n1]".to_owned(), 2, "", "must be a JSON object with the fields"),
        (JSON, format!("[{good},{{\"a\":}}]"), 1, "", "must be valid JSON"),
        (JSON, format!("[{good}"), 1, "", "the body ends too early"),
        (JSON, format!("[{good}]]"), 1, "", "the end of the body after the array"),
        (NDJSON, format!("{good}\n{{\n"), 2, "", "must be valid JSON"),
        (NDJSON, "a".repeat(20_000), 1, "", "a row of at most 16384 bytes"),
        (JSON, json!([{"name": "x"}]).to_string(), 1, "survived", "is missing"),
    ] {
        let answer = post(&app, media_type, body.clone()).await;
        let found = faults(&answer);
        let is_named = |(l, f, d): &(u64, String, String)| *l == line && f == field && d.contains(detail);
        assert!(found.iter().any(is_named), "{media_type} {body}: {found:?}");
        assert_eq!(count(&app).await, 0);
    }
}

#[tokio::test]
async fn an_unsupported_format_answers_415_with_the_supported_ones() {
    let app = TestApp::start().await;
    let problem = post(&app, "application/xml", "<a/>").await.expect_problem(415, "unsupported-media-type");
    let detail = problem["detail"].as_str().expect("a text");
    assert!([JSON, CSV, NDJSON].iter().all(|taken| detail.contains(taken)), "{detail}");
}

#[tokio::test]
async fn bulk_bodies_have_their_own_larger_limit() {
    let app = TestApp::start_with(&["--max-body-bytes=2048", "--bulk-max-bytes=100000"]).await;
    for (media_type, body) in bodies(&crowd(300)) {
        assert!(body.len() > 2048);
        post(&app, media_type, body).await.expect(StatusCode::CREATED);
    }
    for (media_type, body) in bodies(&crowd(2000)) {
        post(&app, media_type, body.clone()).await.expect_problem(413, "body-too-large");
        // The same body without Content-Length.
        let pieces: Vec<_> =
            body.into_bytes().chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        post(&app, media_type, Body::wrap_stream(stream::iter(pieces))).await.expect_problem(413, "body-too-large");
    }
    let one = passenger_with("name", "a".repeat(3000));
    app.post("/v1/passengers", &one).await.expect_problem(413, "body-too-large");
    assert_eq!(count(&app).await, 900);
}

#[tokio::test]
async fn single_and_bulk_bodies_are_distinguished_without_content_length() {
    let app = TestApp::start().await;
    let chunked =
        |pieces: Vec<String>| Body::wrap_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    let one = post(&app, JSON, chunked(vec![" \n".to_owned(), "  ".to_owned(), passenger().to_string()])).await;
    assert_eq!(one.expect(StatusCode::CREATED).json()["name"], "Post-Test-Name");
    let many = post(&app, JSON, chunked(vec![" \n".to_owned(), " [".to_owned(), format!("{}]", passenger())])).await;
    assert_eq!(many.expect(StatusCode::CREATED).json(), json!({"count": 1}));
    post(&app, JSON, chunked(vec![String::new(), "  ".to_owned()])).await.expect_problem(400, "invalid-json");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_answered_408_and_nothing_is_stored() {
    let app = TestApp::start_with(&["--bulk-timeout-ms=1000", "--pool-size=1"]).await;
    let [_, _, (_, lines)] = bodies(&crowd(3000));
    let begun = stream::iter([Ok::<_, std::io::Error>(lines)]);
    let never = futures_util::StreamExt::chain(begun, stream::pending());
    post(&app, NDJSON, Body::wrap_stream(never)).await.expect_problem(408, "request-timeout");
    assert_eq!(count(&app).await, 0);
    app.create(&passenger()).await;
}

#[tokio::test]
async fn a_bulk_create_with_an_idempotency_key_is_executed_once() {
    let app = TestApp::start().await;
    let keyed = |media_type: &str, key: &str, body: String| {
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", media_type);
        send(request.header("idempotency-key", key).header("prefer", "return=representation").body(body))
    };
    for (number, (media_type, body)) in bodies(&crowd(3000)).into_iter().enumerate() {
        let first = keyed(media_type, media_type, body.clone()).await;
        assert_eq!(first.expect(StatusCode::CREATED).json(), json!({"count": 3000}));
        let again = keyed(media_type, media_type, body.clone()).await;
        assert_eq!(again.expect(StatusCode::CREATED).body, first.body);
        assert_eq!(again.header("idempotency-replayed"), "true");
        let [same, ..] = bodies(&crowd(3001));
        keyed(JSON, media_type, same.1).await.expect_problem(422, "idempotency-key-reused");
        assert_eq!(count(&app).await, 3000 * (number + 1));
    }
    // After a refusal, the corrected rows may be sent with the same key.
    let bad = json!([passenger_with("age", 200)]).to_string();
    keyed(JSON, "corrected", bad).await.expect_problem(422, "invalid-fields");
    keyed(JSON, "corrected", json!([passenger()]).to_string()).await.expect(StatusCode::CREATED);
}
