//! Recording a step, and that it is immutable afterwards.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{FIELDS, get, parameters, record, rows, table};
use crate::harness::{TestApp, send};

#[tokio::test]
async fn recording_answers_201_with_the_step_in_each_of_three_formats() {
    let app = TestApp::start().await;
    let values = [("component", "web shop"), ("version", "1.2.3+4"), ("owner", "Żaneta & co"), ("status", "build")];
    let document: BTreeMap<_, _> = values.into_iter().collect();
    let mut ids = Vec::new();
    for request in [
        app.request(Method::POST, "/v1/steps").query(&values),
        app.request(Method::POST, "/v1/steps").json(&document),
        app.request(Method::POST, "/v1/steps").form(&values),
        // An empty form, as sent by `curl -d ''`.
        app.request(Method::POST, "/v1/steps")
            .query(&values)
            .header("content-type", "application/x-www-form-urlencoded"),
    ] {
        let before = Timestamp::now();
        let answer = send(request).await;
        let after = Timestamp::now();
        let step = answer.expect(StatusCode::CREATED).json();
        let (id, ts) = (step["id"].as_i64().expect("an id"), step["ts"].as_str().expect("a time"));
        assert_eq!(
            answer.body,
            format!(
                r#"{{"id":{id},"ts":"{ts}","component":"web shop","version":"1.2.3+4","owner":"Żaneta & co","status":"build"}}"#
            )
        );
        assert_eq!((ts.len(), &ts[10..11], &ts[26..]), ("2026-01-31T12:00:00.123456Z".len(), "T", "Z"), "{ts}");
        let recorded: Timestamp = ts.parse().expect("a time");
        // The database uses this machine's clock; ours is truncated to microseconds.
        assert!(recorded.as_microsecond() >= before.as_microsecond() && recorded <= after, "{before} {ts} {after}");
        ids.push(id);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(rows(&get(&app, "/v1/steps", &[("format", "json")]).await, "steps").len(), 4);
}

#[tokio::test]
async fn each_missing_or_oversized_parameter_is_reported() {
    let app = TestApp::start().await;
    let long = "x".repeat(129);
    let post = || app.request(Method::POST, "/v1/steps");
    assert_eq!(parameters(&send(post()).await), FIELDS);
    assert_eq!(parameters(&send(post().form(&[("x", "1")])).await), ["x", "component", "version", "owner", "status"]);
    assert_eq!(send(post().json(&json!({}))).await.pointers(), FIELDS.map(|field| format!("/{field}")));
    for faulty in FIELDS {
        for value in [None, Some(""), Some(long.as_str()), Some("a\0b")] {
            let values: Vec<_> = FIELDS
                .iter()
                .filter_map(|field| Some((*field, if *field == faulty { value? } else { "ok" })))
                .collect();
            let document: BTreeMap<_, _> = values.iter().copied().collect();
            for answer in [send(post().query(&values)).await, send(post().form(&values)).await] {
                assert_eq!(parameters(&answer), [faulty]);
                assert!(answer.body.contains("1 to 128 characters"), "{}", answer.body);
                assert_eq!(answer.body.contains("is missing"), value.is_none(), "{}", answer.body);
            }
            let answer = send(post().json(&document)).await;
            assert_eq!(answer.pointers(), [format!("/{faulty}")]);
            assert!(answer.body.contains("1 to 128 characters"), "{}", answer.body);
        }
    }
    let all: Vec<_> = FIELDS.iter().map(|field| (*field, long.as_str())).collect();
    assert_eq!(parameters(&send(post().query(&all)).await), FIELDS);
    assert_eq!(table(&app.get("/v1/steps").await).len(), 1, "nothing was recorded");
}

#[tokio::test]
async fn unparsable_input_is_refused_with_its_cause() {
    let app = TestApp::start().await;
    let good = "component=a&version=b&owner=c&status=d";
    for (query, expected) in [
        (format!("{good}&status=e"), vec!["status"]),
        (format!("{good}&state=e&stage"), vec!["state", "stage"]),
        ("component=%ff&version=%4&owner=%zz&status=d".to_owned(), vec!["component", "version", "owner"]),
    ] {
        let as_query = send(app.request(Method::POST, &format!("/v1/steps?{query}"))).await;
        let form = app.request(Method::POST, "/v1/steps").body(query.clone());
        let as_form = send(form.header("content-type", "application/x-www-form-urlencoded; charset=utf-8")).await;
        for answer in [as_query, as_form] {
            assert_eq!(parameters(&answer), expected, "{query}");
        }
    }
    let form = |body: &'static [u8]| {
        let request = app.request(Method::POST, "/v1/steps").body(body);
        send(request.header("content-type", "application/x-www-form-urlencoded"))
    };
    let not_utf8 = form(b"component=\xff&version=b&owner=c&status=d").await;
    assert!(not_utf8.expect_problem(400, "invalid-query")["detail"].as_str().is_some_and(|d| d.contains("byte 10")));
    form("component=ż&version=b&owner=c&status=d".as_bytes()).await.expect(StatusCode::CREATED);
    let both = app.request(Method::POST, &format!("/v1/steps?{good}")).json(&json!({"component": "z"}));
    send(both).await.expect_problem(400, "invalid-query");
    let json = |body: &'static str| {
        send(app.request(Method::POST, "/v1/steps").header("content-type", "application/json").body(body))
    };
    json("{").await.expect_problem(400, "invalid-json");
    assert_eq!(json("[]").await.pointers(), [""]);
    let answer = json(r#"{"component":1,"version":null,"owner":"\ud800","status":"d","status":"e","a/b":1}"#).await;
    assert_eq!(answer.pointers(), ["/a~1b", "/status", "/component", "/version", "/owner"]);
    let text = app.request(Method::POST, "/v1/steps").header("content-type", "text/csv").body("component");
    send(text).await.expect_problem(415, "unsupported-media-type");
    let large = app.request(Method::POST, "/v1/steps").body("x".repeat(1_048_577));
    send(large).await.expect_problem(413, "body-too-large");
}

#[tokio::test]
async fn the_longest_texts_of_the_longest_characters_are_returned_as_sent() {
    let app = TestApp::start().await;
    // An index entry contains all four of them.
    let texts: Vec<String> = ["𝄞", "☃", "\u{10ffff}", "\u{1}"].iter().map(|c| c.repeat(128)).collect();
    let document: BTreeMap<_, _> = FIELDS.into_iter().zip(&texts).collect();
    send(app.request(Method::POST, "/v1/steps").json(&document)).await.expect(StatusCode::CREATED);
    for path in ["/v1/steps", "/v1/steps/durations"] {
        for parameters in [vec![], vec![("component", texts[0].as_str()), ("owner", texts[2].as_str())]] {
            let answer = get(&app, path, &[parameters, vec![("format", "json")]].concat()).await;
            let row = &rows(&answer, path.rsplit('/').next().expect("a name"))[0];
            assert!(FIELDS.iter().zip(&texts).all(|(field, text)| row[*field] == *text), "{row}");
        }
    }
}

#[tokio::test]
async fn steps_are_append_only() {
    let app = TestApp::start().await;
    let step = record(&app, ["a", "1", "me", "build"]).await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let answer = send(app.request(method.clone(), "/v1/steps")).await;
        answer.expect_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD, POST");
        let answer = send(app.request(method.clone(), "/v1/steps/durations")).await;
        answer.expect_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD");
        send(app.request(method, &format!("/v1/steps/{}", step["id"]))).await.expect_problem(404, "not-found");
    }
    let client = app.database.as_ref().expect("own database").client().await;
    for sql in [
        "update steps set status = 'x'",
        "delete from steps",
        "truncate steps",
        "delete from steps where false",
        "insert into steps (id, ts, component, version, owner, status) values (7, now(), 'a', '1', 'me', 'x')",
        "insert into steps (ts, component, version, owner, status) values (now(), '', '1', 'me', 'x')",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert!(error.as_db_error().is_some(), "{sql}: {error}");
    }
    let error = client.batch_execute("delete from steps").await.expect_err("refused");
    assert!(error.as_db_error().is_some_and(|db| db.message() == "steps are append-only: delete is refused"));
    assert_eq!(rows(&get(&app, "/v1/steps", &[("format", "json")]).await, "steps"), [step]);
}
