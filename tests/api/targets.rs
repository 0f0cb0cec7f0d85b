//! Equivalent request targets, and paths with a trailing slash.

use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{TestApp, passenger, send};

#[tokio::test]
async fn unreserved_characters_may_be_percent_encoded_in_every_path() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let own = format!("/v1/passengers/{}", uuid.replace('-', "%2D"));
    for (path, status) in [
        ("/v1/%70assengers?limit=1", 200),
        ("/%761/passengers/%73tats", 200),
        ("/passenger%6Cist", 200),
        ("/v1/%73teps?format=json", 200),
        ("/v1/air%2dquality", 200),
        ("/air%5Fquality", 200),
        ("/%6Civez", 200),
        ("/openapi%2Ejson", 200),
        (&own, 200),
        ("/v1%2Fpassengers", 404), // an encoded reserved character differs from the literal one
    ] {
        assert_eq!(app.get(path).await.status, status, "{path}");
    }
    let answer = send(app.request(Method::POST, "/v1/%70assengers").json(&passenger())).await;
    answer.expect(StatusCode::CREATED);
    app.put(&own, &passenger()).await.expect(StatusCode::OK);
    app.delete(&own).await.expect(StatusCode::NO_CONTENT);
    app.delete("/v1/%70assengers").await.expect_problem(405, "method-not-allowed");
    let metrics = send(app.client.get(format!("http://{}/%6Detrics", app.metrics_addr))).await;
    metrics.expect(StatusCode::OK);
    assert!(!metrics.body.contains('%'), "metrics must be labelled with templates");
}

#[tokio::test]
async fn a_trailing_slash_redirects_to_the_path_without_it() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let asked = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
    for (method, path, to) in [
        (Method::GET, "/v1/passengers/?limit=1&name=eq.%22", "/v1/passengers?limit=1&name=eq.%22"),
        (Method::HEAD, "/v1/passengers/", "/v1/passengers"),
        (Method::POST, "/v1/passengers/", "/v1/passengers"),
        (Method::PUT, &format!("/v1/passengers/{uuid}/"), &format!("/v1/passengers/{uuid}")),
        (Method::PATCH, &format!("/putpassenger/{uuid}//"), &format!("/putpassenger/{uuid}")),
        (Method::DELETE, &format!("/v1/passengers/{uuid}/"), &format!("/v1/passengers/{uuid}")),
        (Method::POST, "/v1/steps/", "/v1/steps"),
        (Method::GET, "/v1/air-quality/?format=csv", "/v1/air-quality?format=csv"),
        (Method::GET, "/docs/", "/docs"),
        (Method::GET, "/%64ocs/", "/docs"),
    ] {
        let answer = send(asked.request(method.clone(), app.url(path)).json(&passenger())).await;
        assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT, "{method} {path}");
        assert_eq!(answer.header("location"), to, "{method} {path}");
    }
    for path in ["//evil.example/", "/\\evil.example/"] {
        let raw = format!("http://{}{path}", app.addr);
        assert_eq!(send(asked.get(raw)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    // A client that follows the redirect keeps method and body.
    let created = send(app.request(Method::POST, "/v1/passengers/").json(&passenger())).await;
    assert_eq!(created.expect(StatusCode::CREATED).json()["name"], passenger()["name"]);
    let step = json!({"component": "c", "version": "1", "owner": "o", "status": "s"});
    app.post("/v1/steps/", &step).await.expect(StatusCode::CREATED);
    app.get("/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_listed_origin_with_the_default_port_matches_the_origin_that_browsers_send() {
    let app = TestApp::start_with(&["--cors-allow-origins=https://app.example:443,http://[::1]:80"]).await;
    for origin in ["https://app.example", "http://[::1]"] {
        let answer = send(app.request(Method::GET, "/hello").header("origin", origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        let written = app.request(Method::POST, "/v1/passengers").header("origin", origin).json(&passenger());
        send(written.header("sec-fetch-site", "cross-site")).await.expect(StatusCode::CREATED);
        let moved = send(app.request(Method::GET, "/hello/").header("origin", origin)).await;
        assert_eq!(moved.header("access-control-allow-origin"), origin);
    }
}
