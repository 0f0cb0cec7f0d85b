//! Response headers: timings, canonical links, CORS, and caching.

use reqwest::{Method, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Answer, TestApp, passenger, send};

const ORIGIN: &str = "https://app.example";

impl TestApp {
    async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }
}

/// The names of the CORS headers, and `vary`.
fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(reqwest::header::HeaderName::as_str);
    let mut names: Vec<&str> = names
        .filter(|name| name.starts_with("access-control-") || ["timing-allow-origin", "vary"].contains(name))
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn every_response_of_a_route_has_its_duration_and_that_of_the_database() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    for (path, asks_database) in [
        (format!("/v1/passengers/{uuid}"), true),
        ("/v1/passengers".to_owned(), true),
        ("/v1/steps".to_owned(), true),
        (format!("/v1/passengers/{}", Uuid::now_v7()), true),
        ("/v1/passengers/1".to_owned(), false),
        ("/hello".to_owned(), false),
    ] {
        let answer = app.get(&path).await;
        let timing = answer.header("server-timing");
        let (app_ms, db_ms) = timing.split_once(", ").expect("two entries");
        let ms = |entry: &str, name: &str| -> f64 {
            entry.strip_prefix(name).expect(timing).parse().unwrap_or_else(|_| panic!("{timing}"))
        };
        let (app_ms, db_ms) = (ms(app_ms, "app;dur="), ms(db_ms, "db;dur="));
        assert!(db_ms <= app_ms, "{path}: {timing}");
        assert_eq!(db_ms > 0.0, asks_database, "{path}: {timing}");
    }
}

#[tokio::test]
async fn short_urls_link_to_their_canonical_url_and_canonical_urls_to_none() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let one = format!("</v1/passengers/{uuid}>; rel=\"canonical\"");
    let links = |answer: &Answer| -> Vec<String> {
        let links = answer.headers.get_all("link").iter().map(|link| link.to_str().expect("ASCII").to_owned());
        links.filter(|link| link.contains("canonical")).collect()
    };
    let list = app.get("/passengerlist").await;
    assert_eq!(links(&list), ["</v1/passengers>; rel=\"canonical\""]);
    assert_eq!(links(&app.post("/postpassenger", &passenger()).await), ["</v1/passengers>; rel=\"canonical\""]);
    assert_eq!(links(&app.get(&format!("/getpassenger/{uuid}")).await), [one.as_str()]);
    assert_eq!(links(&app.put(&format!("/putpassenger/{uuid}"), &passenger()).await), [one.as_str()]);
    for air in ["/air_quality", "/api/v1/measures/air"] {
        assert_eq!(links(&app.get(air).await), ["</v1/air-quality>; rel=\"canonical\""]);
    }
    let canonical = format!("/v1/passengers/{uuid}");
    for path in ["/v1/passengers", &canonical, "/v1/air-quality", "/hello", "/zero", "/v1/steps"] {
        assert!(links(&app.get(path).await).is_empty(), "{path}");
    }
    assert_eq!(links(&app.delete(&format!("/deletepassenger/{uuid}")).await), [one.as_str()]);
}

#[tokio::test]
async fn every_response_has_a_request_id_and_disables_content_sniffing() {
    let app = TestApp::start_with(&["--cors-allow-origins=*"]).await;
    let preflight = [("origin", ORIGIN), ("access-control-request-method", "PUT"), ("x-request-id", "mine")];
    for (method, path) in [
        (Method::GET, "/hello"),
        (Method::GET, "/passengerlist"),
        (Method::GET, "/nowhere"),
        (Method::POST, "/hello"),
        (Method::POST, "/v1/passengers"),
        (Method::OPTIONS, "/v1/passengers"),
    ] {
        let answer = app.send_with(method.clone(), path, &preflight).await;
        assert_eq!(answer.header("x-request-id"), "mine", "{method} {path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {path}");
        let made = send(app.request(method, path)).await;
        assert_eq!(made.header("x-request-id").len(), 32, "{path}");
    }
}

#[tokio::test]
async fn problems_are_not_cacheable() {
    let app = TestApp::start().await;
    for (path, status) in
        [("/nowhere", 404), ("/v1/passengers/1", 400), ("/postpassenger", 405), ("/v1/steps?limit=x", 400)]
    {
        let answer = app.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (status, "no-store"), "{path}");
    }
}

#[tokio::test]
async fn by_default_pages_of_other_origins_cannot_read_responses() {
    for flags in [&[][..], &["--cors-allow-origins="]] {
        let app = TestApp::start_with(flags).await;
        let answer = app.send_with(Method::GET, "/hello", &[("origin", ORIGIN)]).await;
        assert_eq!(cors_headers(answer.expect(StatusCode::OK)), [] as [&str; 0]);
        let preflight = [("origin", ORIGIN), ("access-control-request-method", "PUT")];
        let answer = app.send_with(Method::OPTIONS, "/v1/passengers", &preflight).await;
        answer.expect_problem(405, "method-not-allowed");
        assert_eq!(cors_headers(&answer), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn only_pages_of_listed_origins_can_read_responses_and_problems() {
    let app = TestApp::start_with(&["--cors-allow-origins=https://other.example, https://app.example"]).await;
    for (path, status) in [("/hello", 200), ("/nowhere", 404), ("/v1/passengers/1", 400)] {
        let answer = app.send_with(Method::GET, path, &[("origin", ORIGIN)]).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
        assert_eq!(answer.header("timing-allow-origin"), ORIGIN);
        assert_eq!(answer.header("vary"), "origin");
        let exposed = answer.header("access-control-expose-headers");
        for name in ["etag", "location", "link", "content-range", "x-request-id", "retry-after", "idempotency-replayed"]
        {
            assert!(exposed.split(", ").any(|header| header == name), "{name} is not in {exposed}");
        }
        for stranger in ["https://app.example.evil", "http://app.example", "null", ""] {
            let answer = app.send_with(Method::GET, path, &[("origin", stranger)]).await;
            assert_eq!(answer.status.as_u16(), status);
            assert_eq!(cors_headers(&answer), ["vary"], "{stranger}");
        }
        assert_eq!(cors_headers(&app.get(path).await), ["vary"]);
    }
}

#[tokio::test]
async fn a_preflight_is_answered_for_allowed_origins_without_reaching_a_route() {
    for (flag, expected) in [("--cors-allow-origins=https://app.example", ORIGIN), ("--cors-allow-origins=*", "*")] {
        let app = TestApp::start_with(&[flag]).await;
        let headers = [
            ("origin", ORIGIN),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", "content-type,if-match"),
        ];
        let answer = app.send_with(Method::OPTIONS, &format!("/v1/passengers/{}", Uuid::now_v7()), &headers).await;
        assert_eq!(answer.expect(StatusCode::NO_CONTENT).body, "");
        assert_eq!(answer.header("access-control-allow-origin"), expected);
        assert!(answer.header("access-control-allow-methods").contains("PATCH"));
        for name in ["content-type", "if-match", "if-none-match", "idempotency-key", "prefer", "x-request-id"] {
            assert!(answer.header("access-control-allow-headers").split(", ").any(|header| header == name), "{name}");
        }
        assert_eq!(answer.header("access-control-max-age"), "600");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        // An OPTIONS request that is not a preflight is handled like any other request.
        app.send_with(Method::OPTIONS, "/hello", &[("origin", ORIGIN)]).await.expect(StatusCode::METHOD_NOT_ALLOWED);
        let changed = app.send_with(Method::POST, "/v1/passengers", &[("origin", ORIGIN)]);
        assert_eq!(changed.await.header("access-control-allow-origin"), expected);
        let created =
            send(app.request(Method::POST, "/v1/passengers").header("origin", ORIGIN).json(&passenger())).await;
        assert_eq!(created.expect(StatusCode::CREATED).json()["name"], json!("Post-Test-Name"));
    }
    let app = TestApp::start_with(&["--cors-allow-origins=https://other.example"]).await;
    let refused = [("origin", ORIGIN), ("access-control-request-method", "PATCH")];
    let refused = app.send_with(Method::OPTIONS, "/v1/passengers", &refused).await;
    assert_eq!(cors_headers(refused.expect(StatusCode::METHOD_NOT_ALLOWED)), ["vary"]);
}
