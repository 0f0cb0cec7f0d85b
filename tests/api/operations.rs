//! Operations: greetings, probes, metrics, request ids, and shutdown.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Database, TestApp, eventually, passenger, send, with_roles};
use pycrudapi::server::Drained;

#[tokio::test]
async fn the_greetings_keep_their_responses() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/hello").await.expect(StatusCode::OK).body, r#"{"message":"ok"}"#);
    assert_eq!(app.get("/zero").await.expect(StatusCode::OK).body, r#"{"0":""}"#);
    let text = app.get("/helloworld").await;
    assert_eq!(text.expect(StatusCode::OK).body, "Hello World!");
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn the_root_is_a_page_for_browsers_and_plain_text_for_others() {
    let app = TestApp::start().await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = send(app.request(Method::GET, "/").header("accept", browser)).await;
    page.expect(StatusCode::OK);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none';"));
    assert!(page.body.starts_with("<!doctype html>\n<html lang=\"en\">"), "{}", page.body);
    let text = send(app.request(Method::GET, "/").header("accept", "*/*")).await; // what curl sends
    assert_eq!(text.expect(StatusCode::OK).header("content-type"), "text/plain; charset=utf-8");
    assert_eq!((page.header("vary"), text.header("vary")), ("accept", "accept"));
    assert_eq!(app.get("/").await.body, text.body);
    let head = send(app.request(Method::HEAD, "/")).await;
    assert_eq!(head.expect(StatusCode::OK).header("content-length"), text.body.len().to_string());
    let refused = send(app.request(Method::POST, "/")).await;
    refused.expect_problem(405, "method-not-allowed");
    assert_eq!(refused.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn every_route_listed_at_the_root_exists() {
    let app = TestApp::start().await;
    let text = app.get("/").await.body;
    let mut listed = 0;
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        let (method, path) = line.trim().split_once(' ').expect("a method and a path");
        let path = path.trim().split(' ').next().expect("a path").replace("{uuid}", "0");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        // An empty or malformed request reaches its route, which then reports the error.
        let status = send(app.request(method, &path)).await.status;
        assert!(![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status), "{line}: {status}");
        listed += 1;
    }
    assert!(listed > 15, "{text}");
}

#[tokio::test]
async fn readiness_reports_each_check() {
    let app = TestApp::start().await;
    app.get("/livez").await.expect(StatusCode::OK);
    let ready = app.get("/readyz").await;
    ready.expect(StatusCode::OK);
    assert_eq!(
        ready.json(),
        json!({"status": "ready", "auth": "off", "checks": {"postgres": "ok", "migrations": "ok", "shutdown": "ok"}})
    );
    assert_eq!(ready.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_database_without_migrations_is_alive_but_not_ready() {
    let database = Database::empty().await;
    let app = TestApp::start_on(&database.conninfo(), &["--migrate=false"]).await;
    app.get("/livez").await.expect(StatusCode::OK);
    let problem = app.get("/readyz").await;
    assert_eq!(problem.expect_problem(503, "unavailable")["checks"]["migrations"], "pending");
    assert_eq!(problem.header("retry-after"), "1");
    app.get("/passengerlist").await.expect_problem(503, "unavailable");
    // Another process migrates: the service becomes ready without a restart.
    pycrudapi::db::migrate::prepare(&with_roles(&database.conninfo()), &crate::harness::resources(), || ())
        .await
        .expect("migrated");
    eventually(|| async {
        let answer = app.get("/readyz").await;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body) }
    })
    .await;
    app.get("/passengerlist").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_labelled_by_template_and_served_on_their_own_listener() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    app.get(&format!("/v1/passengers/{uuid}")).await.expect(StatusCode::OK);
    send(app.request(Method::from_bytes(b"BREW").expect("a token"), "/hello"))
        .await
        .expect_problem(405, "method-not-allowed");
    let url = format!("http://{}/metrics", app.metrics_addr);
    let scraped = send(app.client.get(&url)).await;
    scraped.expect(StatusCode::OK);
    assert!(scraped.header("content-type").starts_with("text/plain; version=0.0.4"));
    for expected in [
        r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/v1/passengers/{uuid}",http_response_status_code="200",url_scheme="http",credential="anonymous"}"#,
        r#"http_request_method="_OTHER",http_route="/hello",http_response_status_code="405""#,
        r#"db_batch_size_bucket{resource="passengers",batch="get",le="1"}"#,
        r#"db_batch_wait_seconds_count{resource="passengers",batch="create"}"#,
        r#"db_client_connection_max{pool="keys"} 8"#,
        r#"db_client_connection_max{pool="lists"} 2"#,
        r#"db_client_connection_count{pool="lists",state="idle"}"#,
        "pycrudapi_build_info{version=",
    ] {
        assert!(scraped.body.contains(expected), "{expected} is not in {}", scraped.body);
    }
    assert!(!scraped.body.contains(&uuid), "a raw path became a label");
    app.get("/metrics").await.expect_problem(404, "not-found");
    send(app.client.get(format!("http://{}/hello", app.metrics_addr))).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_request_id_and_a_trace_are_adopted_or_generated() {
    let app = TestApp::start().await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = app.request(Method::GET, "/hello").header("x-request-id", "my-id").header("traceparent", given);
    let answer = send(request).await;
    assert_eq!((answer.header("x-request-id"), answer.header("traceparent")), ("my-id", given));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let (first, second) = (app.get("/hello").await, app.get("/hello").await);
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert!(first.header("traceparent").contains(first.header("x-request-id")));
    for bad in ["has space", "x".repeat(129).as_str()] {
        let answer = send(app.request(Method::GET, "/hello").header("x-request-id", bad)).await;
        assert_ne!(answer.header("x-request-id"), bad);
    }
}

/// A POST with half of its body sent: in flight until the rest follows.
async fn half_sent(app: &TestApp) -> (TcpStream, String) {
    let body = passenger().to_string();
    let mut stream = TcpStream::connect(app.addr).await.expect("connected");
    let head = format!(
        "POST /v1/passengers HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The server requests the body, so the request has reached its handler.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("an interim answer");
    assert!(interim.starts_with(b"HTTP/1.1 100 Continue"));
    let (first, rest) = body.split_at(20);
    stream.write_all(first.as_bytes()).await.expect("sent");
    (stream, rest.to_owned())
}

#[tokio::test]
async fn a_stop_fails_readiness_and_finishes_requests_in_flight() {
    let mut app = TestApp::start().await;
    let mut probe = TcpStream::connect(app.addr).await.expect("connected");
    let (mut stream, rest) = half_sent(&app).await;
    app.ask_to_stop();
    eventually(|| async {
        match TcpStream::connect(app.addr).await {
            Ok(_) => Err("still accepting".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    let _ = probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await; // idle connections may be closed at once
    stream.write_all(rest.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    assert_eq!(app.stop().await, Drained::Whole);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_at_the_deadline() {
    let mut app = TestApp::start_with(&["--drain-timeout-ms=100"]).await;
    let (_stream, _rest) = half_sent(&app).await;
    assert_eq!(app.stop().await, Drained::Partly);
}

#[tokio::test]
async fn a_connection_that_sends_no_headers_is_closed() {
    let app = TestApp::start_with(&["--header-timeout-ms=100"]).await;
    let mut stream = TcpStream::connect(app.addr).await.expect("connected");
    stream.write_all(b"GET /hello HTT").await.expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the end");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn a_refused_body_is_read_so_that_the_connection_stays_usable() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.addr).await.expect("connected");
    let body = vec![b'x'; 300_000];
    let refused = format!("PUT /hello HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    for _ in 0..20 {
        // In two writes, as a proxy sends it that does not buffer the body.
        stream.write_all(refused.as_bytes()).await.expect("sent");
        stream.write_all(&body).await.expect("the body is read");
    }
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.expect("answers to the end");
    assert_eq!(answers.matches("HTTP/1.1 405 ").count(), 20, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
}
