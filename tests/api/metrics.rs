//! The metrics served at /metrics match those documented in docs/operations.md in name and kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Answer, TestApp, eventually, passenger, send};
use crate::redis_server::free_port;

/// The example key of RFC 7517, appendix A.1.
const KEY_SET: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

/// A server with every metric: embedded PostgreSQL, an identity provider, and a cache whose Redis is unreachable.
struct Everything {
    child: Child,
    url: String,
    metrics_url: String,
    folder: PathBuf,
    client: reqwest::Client,
}

impl Everything {
    async fn start() -> Self {
        // In a folder that PostgreSQL's account may enter, unlike temporary folders.
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("metrics-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("created");
        let keys = folder.join("jwks.json");
        std::fs::write(&keys, KEY_SET).expect("written");
        let (address, metrics) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let child = Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
            .arg("serve")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATA_DIR", folder.join("data"))
            .env("AUTH_JWKS_FILE", &keys)
            .envs([("LISTEN", &address), ("METRICS_LISTEN", &metrics)])
            .env("DATABASE_READ_URL", "host=/nowhere/at/all")
            .env("REDIS_URL", format!("redis://127.0.0.1:{}/0", free_port()))
            .envs([("AUTH", "on"), ("AUTH_ANONYMOUS_SCOPES", "*:read,passengers:create"), ("LOG", "warn,access=off")])
            .envs([("AUTH_ISSUER", "https://id.example"), ("AUTH_AUDIENCE", "api"), ("HISTORY_RETENTION", "1h")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        let (url, metrics_url) = (format!("http://{address}"), format!("http://{metrics}/metrics"));
        let server = Self { child, url, metrics_url, folder, client: reqwest::Client::new() };
        eventually(|| async {
            let answer = server.client.get(format!("{}/readyz", server.url)).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status() == StatusCode::OK { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        server
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.client.get(format!("{}{path}", self.url))).await
    }

    async fn metrics(&self) -> String {
        send(self.client.get(&self.metrics_url)).await.body
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        let term = Command::new("kill").arg(self.child.id().to_string()).status();
        if term.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The served metrics with their kinds.
fn served(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').expect("a name and a kind");
            (name.to_owned(), kind.to_owned())
        })
        .collect()
}

/// The metrics of docs/operations.md with their kinds.
fn documented() -> BTreeMap<String, String> {
    let table = include_str!("../../docs/operations.md").split_once("| metric | labels | |").expect("a table").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (name, about) = (cells[0].trim_matches('`'), cells.last().expect("a cell"));
        let about = about.trim_start_matches("| ");
        let kind = if name == "pycrudapi_build_info" { "gauge" } else { about.split(':').next().expect("a word") };
        (name.to_owned(), kind.to_owned())
    })
    .collect()
}

/// The labels of a metric in docs/operations.md.
fn documented_labels(name: &str) -> Vec<String> {
    let row = include_str!("../../docs/operations.md").lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let labels = row.expect("a row").split(" | ").nth(1).expect("a cell");
    labels.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The label names in each line of a metric.
fn labels_served(text: &str, name: &str) -> Vec<String> {
    let parts = [name.to_owned(), format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count")];
    let lines = text.lines().filter_map(|line| {
        let (series, labels) = line.split_once('{')?;
        parts.iter().any(|part| part == series).then_some(labels)
    });
    let mut found: Vec<String> = lines
        .flat_map(|labels| {
            labels.rsplit_once('}').expect("a value").0.split("\",").map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|label| label.split('=').next().expect("a name").to_owned())
        .filter(|label| label != "le")
        .collect();
    found.sort();
    found.dedup();
    found
}

#[tokio::test]
async fn the_docs_list_exactly_the_served_metrics() {
    let server = Everything::start().await;
    let created = server.client.post(format!("{}/v1/passengers", server.url)).json(&passenger());
    send(created).await.expect(StatusCode::CREATED);
    for path in ["/v1/passengers?limit=1", "/v1/passengers/stats", "/v1/steps", "/air_quality"] {
        server.get(path).await.expect(StatusCode::OK);
    }
    let text = server.metrics().await;
    assert_eq!(served(&text), documented());
    for name in served(&text).keys() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
        let documented = documented_labels(name);
        for label in labels_served(&text, name) {
            assert!(documented.contains(&label), "docs/operations.md does not list the label {label} of {name}");
        }
    }
    assert!(text.contains("\npostgres_embedded_up 1\n"), "{text}");
    assert!(text.contains("\npostgres_embedded_restarts_total 0\n"), "{text}");
}

/// The value of a series; zero if it is missing.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().expect("a number"))
}

async fn scraped(app: &TestApp) -> String {
    send(app.client.get(format!("http://{}/metrics", app.metrics_addr))).await.body
}

#[tokio::test]
async fn the_duration_of_each_statement_is_labelled_by_operation() {
    let app = TestApp::start().await;
    let counts = |text: &str| {
        ["create", "get", "list", "count", "statistics", "delete"].map(|operation| {
            let labels = format!("{{db_operation_name=\"{operation}\",db_collection_name=\"passengers\"}}");
            value(text, &format!("db_client_operation_duration_seconds_count{labels}"))
        })
    };
    let before = counts(&scraped(&app).await);
    let uuid = app.create(&passenger()).await;
    let url = format!("/v1/passengers/{uuid}");
    app.get(&url).await.expect(StatusCode::OK);
    let counted = app.client.get(app.url("/v1/passengers?limit=1")).header("prefer", "count=exact");
    send(counted).await.expect(StatusCode::OK);
    app.get("/v1/passengers/stats").await.expect(StatusCode::OK);
    app.delete(&url).await.expect(StatusCode::NO_CONTENT);
    let after = counts(&scraped(&app).await);
    // Other tests of this process run statements as well.
    for (before, after) in before.into_iter().zip(after) {
        assert!(after >= before + 1.0, "{before} {after}");
    }
}

#[tokio::test]
async fn requests_are_labelled_by_their_credentials() {
    let app = TestApp::start_with(&["--auth=on", "--auth-anonymous-scopes=passengers:read"]).await;
    app.get("/v1/passengers/stats").await.expect(StatusCode::OK);
    send(app.client.get(app.url("/v1/passengers/stats")).bearer_auth("nonsense"))
        .await
        .expect(StatusCode::UNAUTHORIZED);
    let text = scraped(&app).await;
    for (status, credential) in [(200, "anonymous"), (401, "invalid")] {
        let expected = format!(
            "http_route=\"/v1/passengers/stats\",http_response_status_code=\"{status}\",url_scheme=\"http\",credential=\"{credential}\""
        );
        assert!(text.contains(&expected), "{expected} is not in {text}");
    }
}

#[tokio::test]
async fn bodies_are_measured_in_both_directions() {
    let app = TestApp::start().await;
    let of = |text: &str, direction: &str, part: &str| {
        value(text, &format!("http_server_{direction}_body_size_bytes_{part}{{http_route=\"/v1/air-quality\"}}"))
    };
    // No other test sends a body to this route.
    let refused = app.client.post(app.url("/v1/air-quality")).body("x".repeat(5000));
    send(refused).await.expect(StatusCode::METHOD_NOT_ALLOWED);
    let text = scraped(&app).await;
    assert_eq!((of(&text, "request", "sum"), of(&text, "request", "count")), (5000.0, 1.0), "{text}");
    assert!(of(&text, "response", "sum") > 0.0, "{text}");
}

#[tokio::test]
async fn each_readiness_check_has_a_metric() {
    let app = TestApp::start().await;
    app.until_ready().await;
    let text = scraped(&app).await;
    let ready = app.get("/readyz").await.json();
    let checks = ready["checks"].as_object().expect("checks").keys().cloned().collect::<Vec<_>>();
    assert_eq!(json!(checks), json!(["postgres", "migrations", "shutdown"]));
    for check in checks {
        assert!(text.contains(&format!("ready{{check=\"{check}\"}} ")), "{text}");
    }
}
