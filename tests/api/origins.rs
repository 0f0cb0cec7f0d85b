//! Host and origin checks: the accepted host names, and the origins whose pages may write.

use pycrudapi::docs::endpoints;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::harness::{Answer, TestApp, passenger, send};

const LISTED: &str = "https://app.example";
const EVIL: &str = "https://evil.example";
const STEP: &str = "component=c&version=1&owner=o&status=s";

fn with_headers(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

#[track_caller]
fn expect_foreign(answer: &Answer) {
    let problem = answer.expect_problem(403, "foreign-origin");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("CORS_ALLOW_ORIGINS")), "{}", answer.body);
}

#[track_caller]
fn expect_misdirected(answer: &Answer, host: &str) {
    let problem = answer.expect_problem(421, "misdirected-request");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("ALLOWED_HOSTS") && detail.contains(host), "{}", answer.body);
}

async fn nothing_is_stored(app: &TestApp) {
    assert_eq!(app.get("/passengerlist").await.body, "[]");
    assert_eq!(app.get("/v1/steps?format=json").await.json(), json!({"steps": []}));
}

/// Every method that changes something, on every path.
fn writes() -> Vec<(Method, String)> {
    let all = endpoints::operations(crate::harness::resources());
    let templates = all.flat_map(|endpoint| endpoint.templates.iter());
    let paths = templates.map(|template| template.replace("{uuid}", &Uuid::now_v7().to_string()));
    paths
        .flat_map(|path| ["POST", "PUT", "PATCH", "DELETE"].map(|method| (method.parse().expect("one"), path.clone())))
        .collect()
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_write_on_any_route() {
    let app = TestApp::start_with(&[&format!("--cors-allow-origins={LISTED}")]).await;
    for (method, path) in writes() {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", EVIL)],
            &[("origin", "null")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            let answer = send(with_headers(app.request(method.clone(), &path), headers).json(&passenger())).await;
            expect_foreign(&answer);
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{method} {path}");
            assert_eq!(answer.header("vary"), "origin");
        }
    }
    // Requests that a page can send without a preflight: a form, and bytes without a type.
    let form = app.request(Method::POST, "/v1/steps").header("content-type", "application/x-www-form-urlencoded");
    expect_foreign(&send(with_headers(form, &[("origin", EVIL), ("sec-fetch-site", "cross-site")]).body(STEP)).await);
    let bytes = app.request(Method::POST, "/v1/passengers").body(passenger().to_string());
    expect_foreign(&send(with_headers(bytes, &[("origin", EVIL), ("sec-fetch-mode", "no-cors")])).await);
    nothing_is_stored(&app).await;
}

#[tokio::test]
async fn same_origin_pages_listed_origins_and_programs_can_write() {
    let app = TestApp::start_with(&[&format!("--cors-allow-origins={LISTED}")]).await;
    let own = format!("http://{}", app.addr);
    let port = app.addr.port();
    let (by_name, tls) = (format!("http://localhost:{port}"), format!("https://{}", app.addr));
    let name = format!("localhost:{port}");
    for headers in [
        &[][..],
        &[("origin", own.as_str())],
        &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")],
        &[("origin", by_name.as_str()), ("host", name.as_str())],
        &[("origin", tls.as_str()), ("x-forwarded-proto", "https")],
        &[("sec-fetch-site", "none")],
        &[("origin", LISTED), ("sec-fetch-site", "cross-site")],
    ] {
        let created = send(with_headers(app.request(Method::POST, "/v1/passengers"), headers).json(&passenger())).await;
        let uuid = created.expect(StatusCode::CREATED).json()["uuid"].as_str().expect("a uuid").to_owned();
        let marked = headers.contains(&("origin", LISTED));
        assert_eq!(created.headers.contains_key("access-control-allow-origin"), marked, "{headers:?}");
        let path = format!("/v1/passengers/{uuid}");
        send(with_headers(app.request(Method::PUT, &path), headers).json(&passenger())).await.expect(StatusCode::OK);
        send(with_headers(app.request(Method::DELETE, &path), headers)).await.expect(StatusCode::NO_CONTENT);
        // Without a body, no Content-Type is required.
        send(with_headers(app.request(Method::POST, &format!("/v1/steps?{STEP}")), headers))
            .await
            .expect(StatusCode::CREATED);
    }
    let anybody = TestApp::start_with(&["--cors-allow-origins=*"]).await;
    let headers = [("origin", EVIL), ("sec-fetch-site", "cross-site")];
    let created =
        send(with_headers(anybody.request(Method::POST, "/v1/passengers"), &headers).json(&passenger())).await;
    assert_eq!(created.expect(StatusCode::CREATED).header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn reads_are_answered_for_pages_of_every_origin() {
    let app = TestApp::start().await;
    for method in [Method::GET, Method::HEAD] {
        let headers = [("origin", EVIL), ("sec-fetch-site", "cross-site")];
        send(with_headers(app.request(method, "/v1/passengers"), &headers)).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_body_without_a_type_is_a_415_for_browsers_and_accepted_from_programs() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let path = format!("/v1/passengers/{uuid}");
    let own = format!("http://{}", app.addr);
    let cases = [
        (Method::POST, "/v1/passengers", passenger().to_string()),
        (Method::POST, "/v1/passengers", format!("[{}]", passenger())),
        (Method::POST, "/postpassenger", passenger().to_string()),
        (Method::PUT, path.as_str(), passenger().to_string()),
        (Method::PATCH, path.as_str(), "{\"age\":1}".to_owned()),
        (Method::POST, "/v1/steps", json!({"component": "c", "version": "1", "owner": "o", "status": "s"}).to_string()),
    ];
    for (method, path, body) in cases {
        for header in [
            ("origin", own.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-dest", "empty"),
        ] {
            let request = with_headers(app.request(method.clone(), path), &[header]).body(body.clone());
            send(request).await.expect_problem(415, "unsupported-media-type");
        }
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(body.clone())]));
        let request = with_headers(app.request(method.clone(), path), &[("origin", own.as_str())]).body(chunked);
        send(request).await.expect_problem(415, "unsupported-media-type");
        let answer = send(app.request(method.clone(), path).body(body)).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_misdirected_for_reads_and_writes_alike() {
    let app = TestApp::start_with(&[&format!("--cors-allow-origins={LISTED}")]).await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/hello"),
        (Method::GET, "/livez"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/v1/passengers"),
        (Method::GET, "/nowhere"),
        (Method::POST, "/v1/passengers"),
        (Method::OPTIONS, "/v1/passengers"),
    ] {
        for host in
            ["evil.example", "EVIL.example:80", "evil.example.", "127.0.0.1.evil.example", "localhost.evil.example"]
        {
            let request = app.request(method.clone(), path).header("host", host).header("origin", LISTED);
            let answer = send(request.json(&passenger())).await;
            expect_misdirected(&answer, host);
            assert_eq!(answer.header("access-control-allow-origin"), LISTED);
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    let head = send(app.request(Method::HEAD, "/hello").header("host", "evil.example")).await;
    head.expect(StatusCode::MISDIRECTED_REQUEST);
    nothing_is_stored(&app).await;
    let metrics = format!("http://{}/metrics", app.metrics_addr);
    expect_misdirected(&send(app.client.get(&metrics).header("host", "evil.example")).await, "evil.example");
    let scraped = send(app.client.get(&metrics).header("host", "localhost:9464")).await;
    let refused = "http_route=\"refused\",http_response_status_code=\"421\"";
    assert!(scraped.expect(StatusCode::OK).body.contains(refused), "{}", scraped.body);
}

#[tokio::test]
async fn local_and_configured_host_names_are_answered() {
    let app = TestApp::start_with(&["--allowed-hosts=api.example.com,*.shop.example"]).await;
    for host in [
        "localhost",
        "LOCALHOST:80",
        "a.localhost",
        "10.1.2.3:8080",
        "[::1]:8080",
        "pycrudapi",
        "db.svc.cluster.local",
        "pycrudapi.python-crud-api.svc",
        "me.local",
        "me.internal",
        "me.home.arpa",
        "me.test",
        "api.example.com",
        "Api.Example.com.:8443",
        "a.shop.example",
    ] {
        send(app.request(Method::GET, "/hello").header("host", host)).await.expect(StatusCode::OK);
    }
    for host in ["example.com", "shop.example", "x.api.example.com", "api.example.com.evil.example"] {
        expect_misdirected(&send(app.request(Method::GET, "/hello").header("host", host)).await, host);
    }
    let anything = TestApp::start_with(&["--allowed-hosts=*"]).await;
    send(anything.request(Method::GET, "/hello").header("host", "evil.example")).await.expect(StatusCode::OK);
}

/// The status line of the response to a raw request.
async fn raw(app: &TestApp, request: &str) -> String {
    let mut stream = TcpStream::connect(app.addr).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer to the end");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn absolute_targets_and_duplicate_or_missing_hosts_are_checked() {
    let app = TestApp::start().await;
    for (target, headers, status) in [
        ("http://evil.example/hello", "host: localhost\r\n", "421"),
        ("http://localhost/hello", "host: evil.example\r\n", "421"),
        ("http://localhost/hello", "host: localhost\r\n", "200"),
        ("/hello", "host: localhost\r\nhost: localhost\r\n", "400"),
        ("/hello", "host: localhost\r\nhost: evil.example\r\n", "400"),
        ("/hello", "host: \r\n", "200"),
        ("/hello", "", "200"),
    ] {
        let line = raw(&app, &format!("GET {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await;
        assert_eq!(line.split(' ').nth(1), Some(status), "{target} {headers}: {line}");
    }
    // For a target in absolute form, the request's origin is that of the target.
    let post = |origin: &str| {
        format!(
            "POST http://localhost:1/v1/steps?{STEP} HTTP/1.1\r\nhost: localhost:2\r\norigin: {origin}\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
        )
    };
    assert_eq!(raw(&app, &post("http://localhost:1")).await, "HTTP/1.1 201 Created");
    assert_eq!(raw(&app, &post("http://localhost:2")).await, "HTTP/1.1 403 Forbidden");
}
