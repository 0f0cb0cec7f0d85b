//! The documentation served by the service: the OpenAPI document, Swagger UI, and a page per problem.

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};

use crate::harness::{TestApp, send};

#[tokio::test]
async fn the_document_is_served_and_revalidated_with_304() {
    let app = TestApp::start().await;
    let first = app.get("/openapi.json").await;
    assert_eq!(first.expect(StatusCode::OK).header("content-type"), "application/json");
    assert!(first.json()["openapi"].as_str().expect("a version").starts_with("3.1."));
    assert_eq!(first.header("cache-control"), "no-cache");
    for tag in [first.header("etag").to_owned(), format!("W/{}", first.header("etag"))] {
        let again = send(app.request(Method::GET, "/openapi.json").header(IF_NONE_MATCH, tag)).await;
        assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    }
}

#[tokio::test]
async fn swagger_ui_and_its_files_are_served_from_the_binary() {
    let app = TestApp::start().await;
    let page = app.get("/docs").await;
    assert_eq!(page.expect(StatusCode::OK).header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert!(!page.body.contains("//"), "the page loads an external resource: {}", page.body);
    let files: Vec<&str> =
        page.body.split('"').filter(|part| part.starts_with("/docs/") && part.contains('.')).collect();
    assert_eq!(files.len(), 4, "{}", page.body);
    for file in files {
        let answer = send(app.request(Method::GET, file)).await;
        answer.expect(StatusCode::OK);
        assert!(["text/css", "text/javascript"].iter().any(|kind| answer.header("content-type").starts_with(kind)));
        assert_eq!(answer.headers.contains_key(CONTENT_ENCODING), file.contains("swagger-ui"), "{file}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_accept_gzip_is_refused() {
    let app = TestApp::start().await;
    let request = app.request(Method::GET, "/docs/swagger-ui.css").header(ACCEPT_ENCODING, "br");
    send(request).await.expect_problem(406, "not-acceptable");
}

#[tokio::test]
async fn the_type_of_a_problem_links_to_a_page_with_a_remedy() {
    let app = TestApp::start().await;
    let problem = app.get("/v1/passengers/none").await.expect_problem(400, "invalid-uuid");
    let page = app.get(problem["type"].as_str().expect("a type")).await;
    assert_eq!(page.expect(StatusCode::OK).header("content-type"), "text/html; charset=utf-8");
    for part in ["<h1>Invalid UUID in the path</h1>", "What happened", "What to do", "HTTP 400", "invalid-uuid"] {
        assert!(page.body.contains(part), "no {part} in {}", page.body);
    }
    assert!(!page.body.contains("{{"), "{}", page.body);
}

#[tokio::test]
async fn every_listed_problem_has_its_page() {
    let app = TestApp::start().await;
    let list = app.get("/docs/problems").await;
    let pages: Vec<&str> = list.body.split('"').filter(|part| part.starts_with("/docs/problems/")).collect();
    assert!(pages.len() > 20, "{}", list.body);
    for page in pages {
        app.get(page).await.expect(StatusCode::OK);
    }
    app.get("/docs/problems/none-such").await.expect_problem(404, "not-found");
    let refused = send(app.request(Method::POST, "/docs/problems")).await;
    refused.expect_problem(405, "method-not-allowed");
    assert_eq!(refused.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn every_problem_is_in_the_table_of_the_api_reference() {
    let reference = include_str!("../../docs/api.md");
    let app = TestApp::start().await;
    let list = app.get("/docs/problems").await;
    let codes = list.body.split('"').filter_map(|part| part.strip_prefix("/docs/problems/"));
    let missing: Vec<&str> = codes.filter(|code| !reference.contains(&format!("\n| `{code}` | "))).collect();
    assert_eq!(missing, [""; 0], "docs/api.md, Problems");
}

#[tokio::test]
async fn all_files_of_the_web_page_are_served() {
    let app = TestApp::start().await;
    let page = send(app.request(Method::GET, "/").header("accept", "text/html")).await;
    let files: Vec<&str> = page.body.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(files.len() > 8, "{}", page.body);
    let mut scripts = String::new();
    for file in &files {
        let answer = app.get(file).await;
        answer.expect(StatusCode::OK);
        assert_eq!(answer.header("cache-control"), "no-cache", "{file}");
        let again = send(app.request(Method::GET, file).header(IF_NONE_MATCH, answer.header("etag"))).await;
        again.expect(StatusCode::NOT_MODIFIED);
        scripts.push_str(&answer.body);
    }
    for import in scripts.split("from \"./").skip(1) {
        let name = import.split('"').next().expect("a file");
        assert!(files.contains(&format!("/assets/{name}").as_str()), "{name} is not preloaded by the page");
    }
    assert!(!scripts.contains("innerHTML"), "API responses must never be inserted as markup");
    let refused = send(app.request(Method::POST, "/assets/app.js")).await;
    refused.expect_problem(405, "method-not-allowed");
}
