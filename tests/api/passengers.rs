//! Passengers: the responses of each operation under both URLs.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{TestApp, passenger, passenger_with, send};

#[tokio::test]
async fn creating_answers_201_with_location_and_the_passenger_as_stored() {
    let app = TestApp::start().await;
    for url in ["/v1/passengers", "/postpassenger"] {
        let answer = app.post(url, &passenger()).await;
        answer.expect(StatusCode::CREATED);
        let stored = answer.json();
        let uuid = stored["uuid"].as_str().expect("a uuid");
        assert_eq!(answer.header("location"), format!("/v1/passengers/{uuid}"));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(Uuid::parse_str(uuid).expect("a uuid").get_version_num(), 7);
        assert_eq!(
            answer.body,
            format!(
                r#"{{"uuid":"{uuid}","survived":true,"passengerClass":2,"name":"Post-Test-Name","sex":"male","age":27.0,"siblingsOrSpousesAboard":0,"parentsOrChildrenAboard":0,"fare":13.0}}"#
            )
        );
        app.get(answer.header("location")).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn reading_answers_the_same_under_both_urls() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger_with("age", Value::Null)).await;
    let canonical = app.get(&format!("/v1/passengers/{uuid}")).await;
    let short = app.get(&format!("/getpassenger/{uuid}")).await;
    assert_eq!(canonical.expect(StatusCode::OK).body, short.expect(StatusCode::OK).body);
    assert_eq!(canonical.json()["age"], Value::Null);
}

#[tokio::test]
async fn replacing_answers_200_with_the_new_passenger_and_keeps_the_uuid() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    for (url, name) in [("/v1/passengers", "First"), ("/putpassenger", "Second")] {
        let mut body = passenger_with("name", name);
        body["uuid"] = json!(uuid); // welcome, because it equals the path's
        let answer = app.put(&format!("{url}/{uuid}"), &body).await;
        answer.expect(StatusCode::OK);
        assert_eq!((&answer.json()["uuid"], &answer.json()["name"]), (&json!(uuid), &json!(name)));
        assert_eq!(app.get(&format!("/v1/passengers/{uuid}")).await.body, answer.body);
    }
}

#[tokio::test]
async fn deleting_answers_204_and_deleting_twice_answers_404() {
    let app = TestApp::start().await;
    for url in ["/v1/passengers", "/deletepassenger"] {
        let uuid = app.create(&passenger()).await;
        let answer = app.delete(&format!("{url}/{uuid}")).await;
        assert_eq!(answer.expect(StatusCode::NO_CONTENT).body, "");
        app.delete(&format!("{url}/{uuid}")).await.expect_problem(404, "not-found");
        app.get(&format!("/v1/passengers/{uuid}")).await.expect_problem(404, "not-found");
    }
}

#[tokio::test]
async fn an_unknown_uuid_answers_404_and_a_malformed_one_400() {
    let app = TestApp::start().await;
    let unknown = Uuid::now_v7();
    for (method, url) in [
        (Method::GET, "/v1/passengers"),
        (Method::GET, "/getpassenger"),
        (Method::PUT, "/v1/passengers"),
        (Method::PUT, "/putpassenger"),
        (Method::DELETE, "/v1/passengers"),
        (Method::DELETE, "/deletepassenger"),
    ] {
        let request = |segment: &str| {
            let request = app.request(method.clone(), &format!("{url}/{segment}"));
            send(if method == Method::PUT { request.json(&passenger()) } else { request })
        };
        request(&unknown.to_string()).await.expect_problem(404, "not-found");
        for malformed in ["1", "not-a-uuid", "0192d3c5-7a1e-7cc3-9a41", "%00"] {
            request(malformed).await.expect_problem(400, "invalid-uuid");
        }
    }
}

#[tokio::test]
async fn the_list_contains_every_passenger_in_order_of_creation() {
    let app = TestApp::start().await;
    for url in ["/v1/passengers", "/passengerlist"] {
        assert_eq!(app.get(url).await.expect(StatusCode::OK).body, "[]");
    }
    let mut created = Vec::new();
    for number in 0..5 {
        created.push(app.create(&passenger_with("name", format!("Number {number}"))).await);
    }
    for url in ["/v1/passengers", "/passengerlist"] {
        let list = app.get(url).await.json();
        let uuids: Vec<_> =
            list.as_array().expect("an array").iter().map(|p| p["uuid"].as_str().expect("a uuid")).collect();
        assert_eq!(uuids, created);
    }
}

#[tokio::test]
async fn a_list_of_many_batches_is_streamed_completely() {
    let app = TestApp::start().await;
    let client = app.database.as_ref().expect("own database").client().await;
    client
        .batch_execute(
            "insert into passengers select gen_random_uuid(), true, 1, 'Name ' || n, 'female', null, 0, 0, 0.5 \
             from generate_series(1, 4321) n",
        )
        .await
        .expect("inserted");
    let list = app.get("/passengerlist").await.json();
    let mut names: Vec<String> =
        list.as_array().expect("an array").iter().map(|p| p["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4321);
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    for url in [
        "/hello",
        "/passengerlist",
        "/v1/passengers",
        &format!("/v1/passengers/{uuid}"),
        &format!("/getpassenger/{uuid}"),
    ] {
        let get = app.get(url).await;
        let head = send(app.request(Method::HEAD, url)).await;
        assert_eq!(head.expect(StatusCode::OK).body, "");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{url}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
}

#[tokio::test]
async fn a_wrong_method_answers_405_with_allow() {
    let app = TestApp::start().await;
    let uuid = Uuid::now_v7();
    for (method, url, allow) in [
        (Method::PATCH, "/v1/passengers".to_owned(), "GET, HEAD, POST"),
        (Method::POST, format!("/v1/passengers/{uuid}"), "GET, HEAD, PUT, PATCH, DELETE"),
        (Method::POST, "/passengerlist".to_owned(), "GET, HEAD"),
        (Method::DELETE, format!("/getpassenger/{uuid}"), "GET, HEAD"),
        (Method::GET, "/postpassenger".to_owned(), "POST"),
        (Method::GET, format!("/putpassenger/{uuid}"), "PUT"),
        (Method::GET, format!("/deletepassenger/{uuid}"), "DELETE"),
        (Method::POST, "/hello".to_owned(), "GET, HEAD"),
        (Method::OPTIONS, "/zero".to_owned(), "GET, HEAD"),
        (Method::DELETE, "/livez".to_owned(), "GET, HEAD"),
        (Method::PUT, "/readyz".to_owned(), "GET, HEAD"),
    ] {
        let answer = send(app.request(method.clone(), &url)).await;
        answer.expect_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {url}");
    }
}

#[tokio::test]
async fn an_unknown_path_answers_404_as_a_problem() {
    let app = TestApp::start().await;
    for url in ["/nothing", "/v1", "/v1/nothing/", "/getpassenger", "/v1/passengers/a/b", "//hello"] {
        app.get(url).await.expect_problem(404, "not-found");
    }
}

#[tokio::test]
async fn values_at_the_limits_of_each_rule_are_returned_as_sent() {
    let app = TestApp::start().await;
    for (field, value) in [
        ("age", json!(0)),
        ("age", json!(130)),
        ("age", json!(0.42)),
        ("passengerClass", json!(3)),
        ("passengerClass", json!(1.0)),
        ("siblingsOrSpousesAboard", json!(2_147_483_647)),
        ("fare", json!(0)),
        ("fare", json!(512.3292)),
        ("fare", json!(1.7e308)),
        ("name", json!("a")),
        ("name", json!("ż".repeat(150))),
        ("name", json!("quote \" backslash \\ newline \n tab \t snowman ☃ astral 𝄞 del \u{7f}")),
    ] {
        let uuid = app.create(&passenger_with(field, value.clone())).await;
        let stored = app.get(&format!("/v1/passengers/{uuid}")).await.json();
        match value.as_f64() {
            Some(number) => assert_eq!(stored[field].as_f64(), Some(number), "{field}"),
            None => assert_eq!(stored[field], value, "{field}"),
        }
    }
}
