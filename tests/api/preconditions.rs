//! Entity tags and conditional requests: no client overwrites a change it has not seen.

use std::sync::Arc;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, TestApp, passenger, passenger_with, send};

/// Enough concurrent requests that most of them share a statement.
const TOGETHER: usize = 64;

impl TestApp {
    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.conditional(Method::PATCH, path, &[], Some(body)).await
    }
}

/// The strong ETag of a response.
#[track_caller]
fn tag(answer: &Answer) -> &str {
    let tag = answer.header("etag");
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    tag
}

#[tokio::test]
async fn every_response_with_a_passenger_has_the_etag_of_its_state() {
    let app = TestApp::start().await;
    for create in ["/v1/passengers", "/postpassenger"] {
        let created = app.post(create, &passenger()).await;
        let mut seen = vec![tag(&created).to_owned()];
        let url = created.header("location").to_owned();
        let uuid = url.rsplit('/').next().expect("a uuid").to_owned();
        let body = Some(passenger_with("age", 1));
        for (method, url, body) in [
            (Method::PUT, url.clone(), body.clone()),
            (Method::PUT, format!("/putpassenger/{uuid}"), body),
            (Method::PATCH, url.clone(), Some(json!({"age": 2}))),
        ] {
            let changed = app.conditional(method, &url, &[], body).await;
            assert!(!seen.iter().any(|old| old == tag(changed.expect(StatusCode::OK))), "a tag was repeated");
            seen.push(tag(&changed).to_owned());
            for (method, url) in
                [(Method::GET, &url), (Method::HEAD, &url), (Method::GET, &format!("/getpassenger/{uuid}"))]
            {
                if !url.starts_with("/putpassenger") {
                    assert_eq!(tag(&send(app.request(method, url)).await), seen.last().expect("some"), "{url}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_tag_is_never_reused_even_after_delete_and_reimport() {
    let app = TestApp::start().await;
    let created = app.post("/v1/passengers", &passenger()).await;
    let url = created.header("location");
    let client = app.database.as_ref().expect("own database").client().await;
    let uuid = Uuid::parse_str(url.rsplit('/').next().expect("a uuid")).expect("a uuid");
    let mut tags = vec![tag(&created).to_owned()];
    for _ in 0..3 {
        app.delete(url).await.expect(StatusCode::NO_CONTENT);
        let import = "insert into passengers (uuid, survived, passenger_class, name, sex, age, \
                      siblings_or_spouses_aboard, parents_or_children_aboard, fare) \
                      values ($1, true, 2, 'Post-Test-Name', 'male', 27, 0, 0, 13)";
        client.execute(import, &[&uuid]).await.expect("imported");
        let again = app.get(url).await;
        assert_eq!(again.body, created.body);
        assert!(!tags.iter().any(|old| old == tag(&again)), "{again:?}");
        tags.push(tag(&again).to_owned());
        // Statements that do not set the version: those of the previous release, or a manual repair.
        client.execute("update passengers set fare = fare where uuid = $1", &[&uuid]).await.expect("updated");
        let touched = app.get(url).await;
        assert!(!tags.iter().any(|old| old == tag(&touched)), "{touched:?}");
        tags.push(tag(&touched).to_owned());
    }
}

#[tokio::test]
async fn a_client_that_already_has_the_state_is_answered_304() {
    let app = TestApp::start().await;
    let created = app.post("/v1/passengers", &passenger()).await;
    let (url, tag) = (created.header("location").to_owned(), tag(&created).to_owned());
    let short = url.replace("/v1/passengers", "/getpassenger");
    for url in [&url, &short] {
        for method in [Method::GET, Method::HEAD] {
            for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", W/\"0\" , {tag}"), "*".to_owned()] {
                let answer = app.conditional(method.clone(), url, &[("if-none-match", &known)], None).await;
                assert_eq!(answer.expect(StatusCode::NOT_MODIFIED).body, "");
                assert_eq!(answer.header("etag"), tag);
                assert!(!answer.headers.contains_key("content-type"), "{answer:?}");
            }
            for other in ["\"0\"", "\"x\"", ""] {
                let answer = app.conditional(method.clone(), url, &[("if-none-match", other)], None).await;
                assert_eq!(answer.expect(StatusCode::OK).header("etag"), tag, "{other}");
            }
            let two_lines = [("if-none-match", "\"0\""), ("if-none-match", tag.as_str())];
            app.conditional(method.clone(), url, &two_lines, None).await.expect(StatusCode::NOT_MODIFIED);
        }
        app.conditional(Method::GET, url, &[("if-match", &tag)], None).await.expect(StatusCode::OK);
        for other in ["\"0\"".to_owned(), format!("W/{tag}")] {
            let refused = app.conditional(Method::GET, url, &[("if-match", &other)], None).await;
            refused.expect_problem(412, "precondition-failed");
        }
    }
    app.put(&url, &passenger_with("age", 1)).await.expect(StatusCode::OK);
    app.conditional(Method::GET, &url, &[("if-none-match", &tag)], None).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_change_succeeds_only_while_its_condition_holds() {
    let app = TestApp::start().await;
    for (method, short, body, success) in [
        (Method::PUT, Some("/putpassenger"), Some(passenger_with("name", "Changed")), StatusCode::OK),
        (Method::PATCH, None, Some(json!({"name": "Changed"})), StatusCode::OK),
        (Method::DELETE, Some("/deletepassenger"), None, StatusCode::NO_CONTENT),
    ] {
        for place in [Some("/v1/passengers"), short].into_iter().flatten() {
            let attempt = |uuid: &str, headers: [(&str, &str); 1]| {
                let (app, method, body, url) = (&app, method.clone(), body.clone(), format!("{place}/{uuid}"));
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                async move {
                    let headers = headers.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
                    app.conditional(method, &url, &headers, body).await
                }
            };
            let created = app.post("/v1/passengers", &passenger()).await;
            let uuid = created.json()["uuid"].as_str().expect("a uuid").to_owned();
            let tag = tag(&created).to_owned();
            let weak = format!("W/{tag}");
            for headers in [
                ("if-match", "\"0\""),
                ("if-match", "\"x\", \"0\""),
                ("if-match", weak.as_str()),
                ("if-match", ""),
                ("if-none-match", "*"),
                ("if-none-match", tag.as_str()),
                ("if-none-match", weak.as_str()),
            ] {
                attempt(&uuid, [headers]).await.expect_problem(412, "precondition-failed");
                let unchanged = app.get(&format!("/v1/passengers/{uuid}")).await;
                assert_eq!((unchanged.header("etag"), &unchanged.body), (tag.as_str(), &created.body), "{headers:?}");
            }
            for headers in [("if-match", "7"), ("if-match", "\"7"), ("if-none-match", "*, \"7\"")] {
                attempt(&uuid, [headers]).await.expect_problem(400, "invalid-header");
            }
            let missing = Uuid::now_v7().to_string();
            for headers in [("if-match", "*"), ("if-match", "\"0\""), ("if-none-match", "*"), ("x", "x")] {
                attempt(&missing, [headers]).await.expect_problem(404, "not-found");
            }
            let listed = format!("\"0\", {tag}");
            for headers in [
                ("if-match", tag.as_str()),
                ("if-match", listed.as_str()),
                ("if-match", "*"),
                ("if-none-match", "\"0\""),
            ] {
                let created = app.post("/v1/passengers", &passenger()).await;
                let fresh = headers.1.replace(&tag, created.header("etag"));
                let uuid = created.json()["uuid"].as_str().expect("a uuid").to_owned();
                attempt(&uuid, [(headers.0, &fresh)]).await.expect(success);
            }
        }
    }
}

#[tokio::test]
async fn where_if_match_is_required_a_change_without_it_answers_428() {
    let app = TestApp::start_with(&["--require-if-match=true"]).await;
    let created = app.post("/v1/passengers", &passenger()).await;
    let url = created.header("location");
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let body = (method != Method::DELETE).then(passenger);
        for headers in [&[][..], &[("if-none-match", "\"0\"")]] {
            let refused = app.conditional(method.clone(), url, headers, body.clone()).await;
            refused.expect_problem(428, "precondition-required");
        }
    }
    app.conditional(Method::PUT, url, &[("if-match", tag(&created))], Some(passenger())).await.expect(StatusCode::OK);
    app.conditional(Method::DELETE, url, &[("if-match", "*")], None).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_read_modify_write_cycles_lose_no_update() {
    let app = Arc::new(TestApp::start().await);
    let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let writers = (0..8).map(|writer| {
        let (app, url) = (app.clone(), url.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while written < 5 {
                let read = app.get(&url).await;
                let mut body = read.json();
                body["siblingsOrSpousesAboard"] = json!(body["siblingsOrSpousesAboard"].as_i64().expect("a count") + 1);
                let method = if writer % 2 == 0 { Method::PUT } else { Method::PATCH };
                let answer = app.conditional(method, &url, &[("if-match", tag(&read))], Some(body)).await;
                match answer.status {
                    StatusCode::OK => written += 1,
                    StatusCode::PRECONDITION_FAILED => {}
                    other => panic!("{other}: {}", answer.body),
                }
            }
        })
    });
    for writer in join_all(writers).await {
        writer.expect("no panic");
    }
    assert_eq!(app.get(&url).await.json()["siblingsOrSpousesAboard"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_patches_of_different_fields_are_all_kept() {
    let app = TestApp::start().await;
    for _ in 0..10 {
        let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
        let patches = [
            json!({"survived": false}),
            json!({"passengerClass": 3}),
            json!({"name": "Patched"}),
            json!({"sex": "female"}),
            json!({"age": null}),
            json!({"siblingsOrSpousesAboard": 5, "parentsOrChildrenAboard": 6}),
            json!({"fare": 7.25}),
            json!({}),
        ];
        let answers = join_all(patches.iter().map(|patch| app.patch(&url, patch.clone()))).await;
        for (patch, answer) in patches.iter().zip(&answers) {
            let stored = answer.expect(StatusCode::OK).json();
            for (name, value) in patch.as_object().expect("an object") {
                assert_eq!(&stored[name], value, "the response differs from the stored row");
            }
        }
        let mut stored = app.get(&url).await.json();
        stored["uuid"] = json!("");
        assert_eq!(
            stored,
            json!({"uuid": "", "survived": false, "passengerClass": 3, "name": "Patched", "sex": "female", "age": null,
                "siblingsOrSpousesAboard": 5, "parentsOrChildrenAboard": 6, "fare": 7.25})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batched_conditions_are_each_checked_against_their_own_passenger() {
    let app = TestApp::start().await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let created = join_all((0..TOGETHER).map(|_| async { app.post("/v1/passengers", &passenger()).await })).await;
        let answers = join_all(created.iter().enumerate().map(|(n, created)| {
            let (app, method) = (&app, method.clone());
            async move {
                let other = tag(created).replacen('"', "\"9", 1);
                let url = match n % 5 {
                    4 => format!("/v1/passengers/{}", Uuid::now_v7()),
                    _ => created.header("location").to_owned(),
                };
                let headers: &[(&str, &str)] = match n % 5 {
                    0 => &[],
                    1 => &[("if-match", tag(created))],
                    2 => &[("if-match", &other)],
                    3 => &[("if-none-match", tag(created))],
                    _ => &[("if-match", tag(created))],
                };
                let body = match method {
                    Method::PUT => Some(passenger_with("name", format!("Number {n}"))),
                    Method::PATCH => Some(json!({"name": format!("Number {n}")})),
                    _ => None,
                };
                app.conditional(method, &url, headers, body).await
            }
        }))
        .await;
        for (n, (answer, created)) in answers.iter().zip(&created).enumerate() {
            let now = app.get(created.header("location")).await;
            match n % 5 {
                0 | 1 if method == Method::DELETE => {
                    answer.expect(StatusCode::NO_CONTENT);
                    now.expect(StatusCode::NOT_FOUND);
                }
                0 | 1 => {
                    assert_eq!(answer.expect(StatusCode::OK).json()["name"], format!("Number {n}"));
                    assert_eq!(
                        (&answer.body, tag(answer)),
                        (&now.body, tag(&now)),
                        "the response differs from the stored row"
                    );
                }
                2 | 3 => {
                    answer.expect_problem(412, "precondition-failed");
                    assert_eq!(now.body, created.body);
                }
                _ => {
                    answer.expect_problem(404, "not-found");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_changes_of_one_state_exactly_one_succeeds() {
    let app = TestApp::start().await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let created = app.post("/v1/passengers", &passenger()).await;
        let answers = join_all((0..TOGETHER).map(|n| {
            let body = (method != Method::DELETE).then(|| passenger_with("fare", n));
            // Half of the deletes name another state; one of them must not be treated as a delete of the current state.
            let tag = if method == Method::DELETE && n % 2 == 0 { "\"0\"" } else { tag(&created) };
            let headers = [("if-match", tag)];
            let (app, url, method) = (&app, created.header("location"), method.clone());
            async move { app.conditional(method, url, &headers, body).await }
        }))
        .await;
        let succeeded: Vec<usize> = (0..TOGETHER).filter(|n| answers[*n].status.is_success()).collect();
        assert_eq!(succeeded.len(), 1, "{method}");
        for (n, answer) in answers.iter().enumerate().filter(|(n, _)| !succeeded.contains(n)) {
            let expected = matches!(answer.status, StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND);
            assert!(expected, "{method} {n}: {answer:?}");
        }
        if method == Method::DELETE {
            assert_eq!(succeeded[0] % 2, 1, "a delete of another state succeeded");
        }
    }
}

#[tokio::test]
async fn a_patch_sets_only_the_given_fields_and_answers_the_stored_passenger() {
    let app = TestApp::start().await;
    let created = app.post("/v1/passengers", &passenger()).await;
    let url = created.header("location");
    let mut expected = created.json();
    for patch in [
        json!({}),
        json!({"name": "Patched"}),
        json!({"age": null}),
        json!({"age": 3, "uuid": expected["uuid"]}),
        json!({"survived": false, "passengerClass": 1, "sex": "female", "fare": 0.5}),
    ] {
        for (name, value) in patch.as_object().expect("an object") {
            expected[name] = if name == "age" && !value.is_null() { json!(3.0) } else { value.clone() };
        }
        let answer = app.patch(url, patch.clone()).await;
        assert_eq!(answer.expect(StatusCode::OK).json(), expected, "{patch}");
        let read = app.get(url).await;
        assert_eq!((&read.body, tag(&read)), (&answer.body, tag(&answer)));
    }
}

#[tokio::test]
async fn an_invalid_patch_changes_nothing_and_reports_every_field() {
    let app = TestApp::start().await;
    let created = app.post("/v1/passengers", &passenger()).await;
    let url = created.header("location");
    for (patch, pointers) in [
        (json!({"survived": null, "name": null, "age": null}), &["/name", "/survived"][..]),
        (json!({"age": 131, "fare": -1, "title": "Mr"}), &["/age", "/fare", "/title"]),
        (json!({"uuid": Uuid::now_v7().to_string()}), &["/uuid"]),
        (json!([]), &[""]),
        (json!(null), &[""]),
    ] {
        let mut named = app.patch(url, patch.clone()).await.pointers();
        named.sort();
        assert_eq!(named, pointers, "{patch}");
    }
    for media_type in ["application/json-patch+json", "text/plain"] {
        let request = app.request(Method::PATCH, url).header("content-type", media_type).body("{}");
        let refused = send(request).await;
        refused.expect_problem(415, "unsupported-media-type");
        assert_eq!(refused.header("accept-patch"), "application/merge-patch+json, application/json");
    }
    app.patch("/v1/passengers/1", json!({})).await.expect_problem(400, "invalid-uuid");
    app.patch(&format!("/v1/passengers/{}", Uuid::now_v7()), json!({})).await.expect_problem(404, "not-found");
    for short in ["/getpassenger", "/putpassenger", "/deletepassenger"] {
        app.patch(&url.replace("/v1/passengers", short), json!({})).await.expect_problem(405, "method-not-allowed");
    }
    let unchanged = app.get(url).await;
    assert_eq!((&unchanged.body, tag(&unchanged)), (&created.body, tag(&created)));
}
