//! Gzip-compressed bodies: accepted by every operation with a body as if they were sent uncompressed; limits apply to the
//! decompressed size.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, eventually, passenger, send};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
const MERGE_PATCH: &str = "application/merge-patch+json";

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content.as_ref()).expect("memory");
    encoder.finish().expect("memory")
}

/// The body in chunks, without Content-Length.
fn in_chunks(compressed: &[u8], length: usize) -> Body {
    let chunks: Vec<_> = compressed.chunks(length).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    Body::wrap_stream(stream::iter(chunks))
}

async fn compressed(app: &TestApp, method: Method, path: &str, media_type: &str, body: impl Into<Body>) -> Answer {
    let request = app.request(method, path).header("content-type", media_type);
    send(request.header("content-encoding", "gzip").body(body)).await
}

fn step(component: &str) -> Value {
    json!({"component": component, "version": "1", "owner": "ann", "status": "started"})
}

/// A service with an additional resource that has a text column and bulk creation.
async fn with_notes(flags: &[&str]) -> TestApp {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "name = \"notes\"\n\n[[column]]\nname = \"text\"\ntype = \"string\"\nmaxLength = 100\n";
    fs::write(folder.path().join("notes.toml"), text).expect("written");
    let folder = format!("--resources-dir={}", folder.path().display());
    TestApp::start_with(&[&[folder.as_str()], flags].concat()).await
}

#[tokio::test]
async fn every_operation_with_a_body_accepts_gzip() {
    let app = with_notes(&[]).await;
    for (path, one) in [("/v1/passengers", passenger()), ("/v1/notes", json!({"text": "é\"\n"}))] {
        let stored = compressed(&app, Method::POST, path, JSON, gzip(one.to_string())).await;
        let document = stored.expect(StatusCode::CREATED).json();
        let uuid = document["uuid"].as_str().expect("a uuid");
        for (name, value) in one.as_object().expect("an object") {
            assert_eq!(&document[name], value, "{path}");
        }
        let own = format!("{path}/{uuid}");
        compressed(&app, Method::PUT, &own, JSON, gzip(one.to_string())).await.expect(StatusCode::OK);
        compressed(&app, Method::PATCH, &own, MERGE_PATCH, gzip("{}")).await.expect(StatusCode::OK);
        let names: Vec<&str> = one.as_object().expect("an object").keys().map(String::as_str).collect();
        let many = json!([one, one]).to_string();
        let lines = format!("{one}\n{one}\n");
        let shown = app.get(&format!("{path}?limit=1&select={}", names.join(","))).await;
        shown.expect(StatusCode::OK);
        let csv = app.request(Method::GET, &format!("{path}?limit=2&select={}", names.join(","))).header("accept", CSV);
        let csv = send(csv).await.body;
        for (media_type, body, count) in [(JSON, many, 2), (NDJSON, lines, 2), (CSV, csv, 1)] {
            for body in [Body::from(gzip(&body)), in_chunks(&gzip(&body), 7)] {
                let answer = compressed(&app, Method::POST, path, media_type, body).await;
                assert_eq!(answer.expect(StatusCode::CREATED).json(), json!({"count": count}), "{path} {media_type}");
            }
        }
    }
    compressed(&app, Method::POST, "/v1/steps", JSON, gzip(step("a").to_string())).await.expect(StatusCode::CREATED);
    let form = gzip("component=b&version=1&owner=ann&status=started");
    let answer = compressed(&app, Method::POST, "/v1/steps", "application/x-www-form-urlencoded", form).await;
    assert_eq!(answer.expect(StatusCode::CREATED).json()["component"], "b");
}

#[tokio::test]
async fn coding_names_are_case_insensitive_and_identity_means_none() {
    let app = TestApp::start().await;
    let plain = passenger().to_string();
    for (coding, body) in [
        ("GZIP", gzip(&plain)),
        ("x-gzip", gzip(&plain)),
        ("identity", plain.clone().into()),
        ("Identity", plain.into()),
    ] {
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", JSON);
        send(request.header("content-encoding", coding).body(body)).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test]
async fn another_coding_answers_415_and_names_the_supported_one() {
    let app = with_notes(&[]).await;
    let uuid = app.create(&passenger()).await;
    let own = format!("/v1/passengers/{uuid}");
    for (method, path, media_type, body) in [
        (Method::POST, "/v1/passengers", JSON, passenger().to_string()),
        (Method::POST, "/postpassenger", JSON, passenger().to_string()),
        (Method::POST, "/v1/passengers", CSV, "survived\n".to_owned()),
        (Method::POST, "/v1/notes", NDJSON, json!({"text": "a"}).to_string()),
        (Method::PUT, &own, JSON, passenger().to_string()),
        (Method::PATCH, &own, MERGE_PATCH, "{}".to_owned()),
        (Method::POST, "/v1/steps", JSON, step("a").to_string()),
    ] {
        for coding in ["br", "zstd", "deflate", "gzip, gzip", "compress", "nonsense"] {
            let request = app.request(method.clone(), path).header("content-type", media_type);
            let answer = send(request.header("content-encoding", coding).body(body.clone())).await;
            let problem = answer.expect_problem(415, "unsupported-media-type");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("Content-Encoding") && detail.contains(coding), "{detail}");
            assert_eq!(answer.header("accept-encoding"), "gzip", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn content_encoding_is_ignored_without_a_body() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    for coding in ["gzip", "br"] {
        let step = "/v1/steps?component=a&version=1&owner=ann&status=started";
        let own = format!("/v1/passengers/{uuid}");
        for (method, path, status) in
            [(Method::GET, own.as_str(), 200), (Method::POST, step, 201), (Method::DELETE, "/v1/passengers/x", 400)]
        {
            let answer = send(app.request(method, path).header("content-encoding", coding)).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn limits_apply_to_the_decompressed_size() {
    let app = with_notes(&["--max-body-bytes=2048", "--bulk-max-bytes=20000"]).await;
    let uuid = app.create(&passenger()).await;
    let own = format!("/v1/passengers/{uuid}");
    for (length, status) in [(2048, 201), (2049, 413)] {
        let body = gzip(format!("{:length$}", passenger().to_string()));
        assert!(body.len() < 1000, "the compressed body must be below the limit");
        assert_eq!(compressed(&app, Method::POST, "/v1/passengers", JSON, body.clone()).await.status, status);
        let replaced = compressed(&app, Method::PUT, &own, JSON, in_chunks(&body, 50)).await;
        assert_eq!(replaced.status.is_success(), status == 201);
        let body = gzip(format!("{:length$}", step("a").to_string()));
        assert_eq!(compressed(&app, Method::POST, "/v1/steps", JSON, body).await.status, status);
        let body = gzip(format!("{:length$}", "{}"));
        assert_eq!(compressed(&app, Method::PATCH, &own, MERGE_PATCH, body).await.status.is_success(), status == 201);
    }
    for (length, status) in [(20_000, 201), (20_001, 413)] {
        let body = gzip(format!("{:length$}", json!([{"text": "a"}]).to_string()));
        assert_eq!(compressed(&app, Method::POST, "/v1/notes", JSON, body).await.status, status);
    }
}

#[tokio::test]
async fn a_decompression_bomb_answers_413_and_uses_no_more_than_the_limit() {
    let app = with_notes(&["--memory-budget=32MiB", "--spool-bytes=4MiB", "--bulk-max-bytes=2097152"]).await;
    let zeros = vec![b' '; 1 << 20];
    let mut bomb = GzEncoder::new(Vec::new(), Compression::default());
    for _ in 0..32 {
        bomb.write_all(&zeros).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    for path in ["/v1/passengers", "/v1/notes", "/v1/steps"] {
        compressed(&app, Method::POST, path, JSON, bomb.clone()).await.expect_problem(413, "body-too-large");
    }
    for media_type in [CSV, NDJSON] {
        let answer = compressed(&app, Method::POST, "/v1/notes", media_type, bomb.clone()).await;
        answer.expect_problem(413, "body-too-large");
    }
    // The memory was released: the largest allowed body is still accepted.
    let body = gzip([json!([{"text": "a"}]).to_string(), " ".repeat((2 << 20) - 14)].concat());
    compressed(&app, Method::POST, "/v1/notes", JSON, body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn leading_whitespace_of_json_is_limited_to_the_size_of_one_row() {
    let app = with_notes(&["--max-body-bytes=65536"]).await;
    let blanks = gzip(vec![b' '; 8 << 20]);
    compressed(&app, Method::POST, "/v1/notes", JSON, blanks).await.expect_problem(413, "body-too-large");
    let many = [" ".repeat(60_000), json!([{"text": "a"}, {"text": "b"}]).to_string(), " ".repeat(200_000)].concat();
    compressed(&app, Method::POST, "/v1/notes", JSON, gzip(many)).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn damaged_gzip_answers_400_and_stores_nothing() {
    let app = with_notes(&[]).await;
    let whole = gzip(json!([{"text": "a"}, {"text": "b"}]).to_string());
    let mut flipped = whole.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    let cases = [
        ("cut", whole[..whole.len() - 1].to_vec(), "gzip data are incomplete"),
        ("plain and short", b"label".to_vec(), "does not begin with a gzip header"),
        ("cut early", whole[..12].to_vec(), "gzip data are incomplete"),
        ("another checksum", flipped, "checksum"),
        ("something behind it", [whole.clone(), b"\n".to_vec()].concat(), "follow the end"),
        ("not gzip", json!([{"text": "a"}]).to_string().into_bytes(), "does not begin with a gzip header"),
    ];
    for (name, body, says) in &cases {
        for (path, media_type) in [("/v1/notes", JSON), ("/v1/notes", NDJSON), ("/v1/notes", CSV), ("/v1/steps", JSON)]
        {
            for body in [Body::from(body.clone()), in_chunks(body, 5)] {
                let answer = compressed(&app, Method::POST, path, media_type, body).await;
                let problem = answer.expect_problem(400, "invalid-json");
                let detail = problem["detail"].as_str().unwrap_or_default();
                assert!(detail.contains("Content-Encoding") && detail.contains(says), "{name} {path}: {detail}");
            }
        }
    }
    assert_eq!(app.get("/v1/notes").await.json(), json!([]));
    let two = [gzip(json!([{"text": "a"},]).to_string().trim_end_matches(']')), gzip(",{\"text\":\"b\"}]")].concat();
    let answer = compressed(&app, Method::POST, "/v1/notes", JSON, two).await;
    assert_eq!(answer.expect(StatusCode::CREATED).json()["count"], 2);
}

#[tokio::test]
async fn a_compressed_body_has_the_same_timeout_as_any_other() {
    let app = TestApp::start_with(&["--body-timeout-ms=300"]).await;
    let begun = gzip(passenger().to_string())[..20].to_vec();
    let stuck =
        futures_util::StreamExt::chain(stream::iter([Ok(begun)]), stream::pending::<Result<_, std::io::Error>>());
    let answer = compressed(
        &app,
        Method::PUT,
        &format!("/v1/passengers/{}", uuid::Uuid::now_v7()),
        JSON,
        Body::wrap_stream(stuck),
    )
    .await;
    answer.expect_problem(408, "request-timeout");
}

#[tokio::test]
async fn an_idempotency_key_refers_to_the_decompressed_content() {
    let app = TestApp::start().await;
    let many = json!([passenger(), passenger()]).to_string();
    for (number, (path, body)) in
        [("/v1/passengers", passenger().to_string()), ("/v1/passengers", many), ("/v1/steps", step("a").to_string())]
            .into_iter()
            .enumerate()
    {
        let ask = |coding: Option<&'static str>, body: Vec<u8>| {
            let request = app.request(Method::POST, path).header("content-type", JSON);
            let request = request.header("idempotency-key", format!("key {number}"));
            send(
                coding
                    .into_iter()
                    .fold(request, |request, coding| request.header("content-encoding", coding))
                    .body(body),
            )
        };
        let first = ask(Some("gzip"), gzip(&body)).await;
        first.expect(StatusCode::CREATED);
        let other_level = {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
            encoder.write_all(body.as_bytes()).expect("memory");
            encoder.finish().expect("memory")
        };
        for (coding, again) in [(None, body.clone().into_bytes()), (Some("x-gzip"), other_level)] {
            let again = ask(coding, again).await;
            assert_eq!((again.status, &again.body), (first.status, &first.body));
            assert_eq!(again.header("idempotency-replayed"), "true");
        }
        let other = body.replace(['2', '1'], "3");
        ask(Some("gzip"), gzip(other)).await.expect_problem(422, "idempotency-key-reused");
    }
}

#[tokio::test]
async fn memory_for_decompression_is_released() {
    let app = TestApp::start().await;
    for _ in 0..20 {
        compressed(&app, Method::POST, "/v1/passengers", JSON, gzip(passenger().to_string())).await;
        compressed(&app, Method::POST, "/v1/passengers", JSON, gzip("[")).await;
    }
    let metrics = format!("http://{}/metrics", app.metrics_addr);
    eventually(|| async {
        let text = send(app.client.get(&metrics)).await.body;
        let used = text.lines().find(|line| line.starts_with("budget_used_bytes{budget=\"bodies\"}"));
        match used {
            Some(line) if line.ends_with(" 0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
