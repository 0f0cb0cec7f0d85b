//! Query parameters: an unknown parameter is refused on every route with every method, and nothing is changed.

use pycrudapi::docs::endpoints;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::harness::{Answer, TestApp, passenger, send};

/// Each method of each template, as a method and an existing path.
fn operations(uuid: &str) -> Vec<(Method, String)> {
    let templates = endpoints::all(crate::harness::resources()).flat_map(|endpoint| {
        let methods = endpoint.methods.iter().map(|(method, _)| *method);
        let methods = methods.chain(endpoint.access("GET").map(|_| "HEAD"));
        methods.flat_map(|method| endpoint.templates.iter().map(move |template| (method, *template)))
    });
    let operation = |(method, template): (&str, &str)| {
        let path = template
            .replace("{uuid}", uuid)
            .replace("{id}", uuid)
            .replace("{code}", "not-found")
            .replace("{name}", "passengers");
        (method.parse().expect("a method"), path)
    };
    templates.map(operation).collect()
}

/// A request that would succeed.
fn request(app: &TestApp, method: &Method, path: &str) -> RequestBuilder {
    let request = app.request(method.clone(), path);
    match method.as_str() {
        "POST" if path.starts_with("/v1/steps") => {
            request.json(&json!({"component": "c", "version": "1", "owner": "o", "status": "s"}))
        }
        "POST" if path.contains("/restore") => request.json(&json!({})),
        "POST" | "PUT" => request.json(&passenger()),
        "PATCH" => request.header("content-type", "application/merge-patch+json").body("{\"age\":1}"),
        _ => request,
    }
}

/// The unknown parameters of a problem.
#[track_caller]
fn named(answer: &Answer) -> Vec<String> {
    let problem = answer.expect_problem(400, "invalid-query");
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", answer.body));
    let unknown =
        errors.iter().filter(|error| error["detail"].as_str().is_some_and(|text| text.contains("is unknown")));
    unknown.map(|error| error["parameter"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_on_every_route_with_every_method_and_nothing_is_changed() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let before = app.get(&format!("/v1/passengers/{uuid}")).await;
    let operations = operations(&uuid);
    assert!(operations.iter().any(|(method, _)| *method == Method::DELETE) && operations.len() > 50);
    for (method, path) in operations {
        let answer = send(request(&app, &method, &format!("{path}?nonsense=eq.99&b%20c&nonsense=1"))).await;
        if method == Method::HEAD {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
        } else {
            assert_eq!(named(&answer), ["nonsense", "b c"], "{method} {path}");
        }
    }
    let after = app.get(&format!("/v1/passengers/{uuid}")).await;
    assert_eq!((&after.body, after.header("etag")), (&before.body, before.header("etag")));
    let list = app.get("/passengerlist").await.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(app.get("/v1/steps?format=json").await.json()["steps"], json!([]));
}

#[tokio::test]
async fn an_empty_query_string_is_ignored() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let (reads, writes): (Vec<_>, Vec<_>) =
        operations(&uuid).into_iter().partition(|(method, _)| *method == Method::GET || *method == Method::HEAD);
    for (method, path) in reads.into_iter().chain(writes.into_iter().filter(|(method, _)| *method != Method::DELETE)) {
        for query in ["?", "?&"] {
            let answer = send(request(&app, &method, &format!("{path}{query}"))).await;
            // A step's fields may be in the body or in the query, so a query string beside a body is an error even if it is
            // empty.
            let both = method == Method::POST && path == "/v1/steps" && query == "?&";
            // A passenger that is not deleted cannot be restored, which is reported only for a valid request.
            let is_taken = match answer.status {
                StatusCode::CONFLICT => path.ends_with("/restore"),
                // Without AUTH=on and an identity provider, a valid request to these is answered with 404.
                StatusCode::NOT_FOUND => path.starts_with("/v1/tokens") || path.starts_with("/.well-known/"),
                status => status.is_success(),
            };
            assert_eq!(is_taken, !both, "{method} {path}{query}: {}", answer.body);
        }
    }
    app.delete(&format!("/v1/passengers/{uuid}?")).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_documented_parameters_are_accepted() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let names: Vec<String> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| format!("{}=", parameter["name"].as_str().expect("a name")))
                .collect();
            if names.is_empty() {
                continue;
            }
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = send(app.request(method.clone(), &format!("{path}?{}", names.join("&")))).await;
            assert!(!answer.body.contains("is unknown"), "{method} {path}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn the_metrics_listener_refuses_parameters_too() {
    let app = TestApp::start().await;
    let url = format!("http://{}/metrics", app.metrics_addr);
    send(app.client.get(format!("{url}?"))).await.expect(StatusCode::OK);
    assert_eq!(named(&send(app.client.get(format!("{url}?name[]=x"))).await), ["name[]"]);
}

#[tokio::test]
async fn an_unknown_path_or_method_answers_404_or_405_despite_parameters() {
    let app = TestApp::start().await;
    app.get("/nowhere?a=1").await.expect_problem(404, "not-found");
    send(app.request(Method::POST, "/hello?a=1")).await.expect_problem(405, "method-not-allowed");
}

#[tokio::test]
async fn a_misspelt_parameter_of_a_step_is_reported_despite_a_body() {
    let app = TestApp::start().await;
    let body = json!({"component": "c", "version": "1", "owner": "o", "status": "s"});
    assert_eq!(named(&app.post("/v1/steps?compnent=c", &body).await), ["compnent"]);
    let both = app.post("/v1/steps?component=c", &body).await;
    assert!(both.expect_problem(400, "invalid-query")["detail"].as_str().expect("a text").contains("not in both"));
}

#[tokio::test]
async fn parameters_of_other_apis_are_answered_with_the_equivalent_one() {
    let app = TestApp::start().await;
    for (path, query, expected) in [
        (
            "/v1/passengers",
            "offset=10",
            "offset is unknown; use after, whose value is in the header Link of the previous page;",
        ),
        ("/passengerlist", "_page=2", "use after,"),
        ("/v1/passengers", "page=2", "use after,"),
        ("/v1/passengers", "page%5Bsize%5D=2", "use limit;"),
        ("/v1/passengers", "per_page=2", "use limit;"),
        ("/v1/passengers", "pageSize=2", "use limit;"),
        ("/v1/passengers", "sort=age", "write order=age;"),
        ("/v1/passengers", "order_by=age", "write order=age;"),
        ("/v1/passengers", "fields=name", "use select;"),
        ("/v1/passengers", "passenger_class=eq.1", "use passengerClass;"),
        ("/v1/passengers", "AGE=eq.1", "use age;"),
        ("/v1/steps", "offset=1", "use after,"),
        ("/v1/steps/durations", "per_page=1", "use limit;"),
        ("/v1/steps", "startDatetime=2026-01-01", "use start_datetime;"),
        ("/v1/passengers", "order=-age", "order has \"-age\"; write age.desc"),
        ("/v1/passengers", "age=30", "age has \"30\" without an operator; write eq.30"),
        ("/v1/passengers", "age=eq.null", "is.null finds rows without a value"),
        ("/v1/passengers/stats", "sex=male", "write eq.male"),
    ] {
        let problem = app.get(&format!("{path}?{query}")).await.expect_problem(400, "invalid-query");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(expected), "{path}?{query}: {detail}");
    }
    // A parameter that does not exist on the route is not suggested.
    for path in ["/v1/air-quality?sort=name", "/v1/passengers/stats?offset=1", "/openapi.json?limit=1"] {
        let problem = app.get(path).await.expect_problem(400, "invalid-query");
        assert!(!problem["detail"].as_str().expect("a text").contains("; use "), "{path}: {problem}");
    }
}
