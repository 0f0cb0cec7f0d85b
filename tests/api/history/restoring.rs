//! Restoring deleted rows and earlier versions.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{create, entries, history, operations, post_as, restore, start, version};
use crate::harness::{Answer, TestApp};
use crate::subjects::{flag, subjects};

/// Restores with a conditional header.
async fn restore_if(app: &TestApp, url: &str, header: (&str, &str), body: Value) -> Answer {
    app.conditional(Method::POST, &format!("{url}/restore"), &[header], Some(body)).await
}

#[tokio::test]
async fn a_deleted_row_is_restored_once_and_only_while_it_is_deleted() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        let first = app.get(&url).await;
        let problem = restore(&app, &url, json!({})).await.expect_problem(409, "conflict");
        assert!(problem["detail"].as_str().expect("a text").contains("is not deleted"), "{problem}");
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        let answers = join_all((0..12).map(|_| restore(&app, &url, json!({})))).await;
        let restored: Vec<&Answer> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(restored.len(), 1, "{answers:?}");
        for refused in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
            refused.expect_problem(409, "conflict");
        }
        assert_eq!(restored[0].body, first.body);
        assert_ne!(version(restored[0]), version(&first));
        let now = app.get(&url).await;
        assert_eq!((&now.body, now.header("etag")), (&first.body, restored[0].header("etag")));
        assert_eq!(operations(&history(&app, &url).await), ["create", "delete", "restore"]);
        // Without a body the last state is restored; with an earlier version, that version.
        app.put(&url, &subject.other).await.expect(StatusCode::OK);
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        let empty = post_as(&app, &format!("{url}/restore"), &[], String::new()).await;
        assert_ne!(empty.expect(StatusCode::OK).body, first.body);
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        let answer = restore(&app, &url, json!({"version": version(&first)})).await;
        assert_eq!(answer.expect(StatusCode::OK).body, first.body);
        let other = format!("{}/0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10", subject.path);
        for body in [json!({}), json!({"version": 7})] {
            restore(&app, &other, body).await.expect_problem(404, "not-found");
        }
    }
}

#[tokio::test]
async fn a_version_is_restored_if_the_row_is_in_the_required_state() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        let first = app.get(&url).await;
        let second = app.put(&url, &subject.other).await;
        let (old, new) = (first.header("etag"), second.header("etag"));
        let wanted = json!({"version": version(&first)});
        let before = entries(&app, &subject).await;
        restore_if(&app, &url, ("if-match", old), wanted.clone()).await.expect_problem(412, "precondition-failed");
        restore_if(&app, &url, ("if-none-match", "*"), wanted.clone()).await.expect_problem(412, "precondition-failed");
        restore_if(&app, &url, ("if-match", "7"), wanted.clone()).await.expect_problem(400, "invalid-header");
        restore(&app, &url, json!({"version": i64::MAX})).await.expect_problem(404, "not-found");
        for bad in [json!({"version": "1"}), json!({"version": null}), json!({"versions": 1})] {
            restore(&app, &url, bad).await.expect_problem(422, "invalid-fields");
        }
        post_as(&app, &format!("{url}/restore"), &[], "{".to_owned()).await.expect_problem(400, "invalid-json");
        assert_eq!(entries(&app, &subject).await, before, "a failed restore must have no entry");
        let third = restore_if(&app, &url, ("if-match", new), wanted.clone()).await;
        assert_eq!(third.expect(StatusCode::OK).body, first.body);
        assert!(![old, new].contains(&third.header("etag")));
        // Concurrent restores all succeed, one after another, unless they require a state.
        let answers = join_all((0..8).map(|_| restore(&app, &url, wanted.clone()))).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
        let now = app.get(&url).await;
        let tag = now.header("etag");
        let answers = join_all((0..8).map(|_| restore_if(&app, &url, ("if-match", tag), wanted.clone()))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1, "{answers:?}");
        assert_eq!(history(&app, &url).await.len(), 12);
        // A deleted row has no state that a condition could match.
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        for header in [("if-match", "*"), ("if-match", old)] {
            restore_if(&app, &url, header, wanted.clone()).await.expect_problem(412, "precondition-failed");
        }
        restore_if(&app, &url, ("if-none-match", "*"), wanted).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn where_if_match_is_required_only_deleted_rows_are_restored_without_it() {
    for subject in subjects() {
        let app = TestApp::start_with(&[&flag(), "--require-if-match=true"]).await;
        let url = create(&app, subject.path, &subject.one).await;
        let first = app.get(&url).await;
        let wanted = json!({"version": version(&first)});
        for body in [json!({}), wanted.clone()] {
            restore(&app, &url, body).await.expect_problem(428, "precondition-required");
        }
        let tag = first.header("etag");
        restore_if(&app, &url, ("if-match", tag), wanted.clone()).await.expect(StatusCode::OK);
        app.conditional(Method::DELETE, &url, &[("if-match", "*")], None).await.expect(StatusCode::NO_CONTENT);
        restore(&app, &url, json!({})).await.expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn a_restore_with_an_idempotency_key_is_executed_once() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        let again = async || {
            let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
            post_as(&app, &format!("{url}/restore"), &headers, "{}".to_owned()).await
        };
        let (first, second) = (again().await, again().await);
        assert_eq!(first.expect(StatusCode::OK).body, second.expect(StatusCode::OK).body);
        assert_eq!(first.header("etag"), second.header("etag"));
        assert_eq!(second.header("idempotency-replayed"), "true");
        assert_eq!(history(&app, &url).await.len(), 3);
    }
}

/// Rules may have been violated by hand: the history shows such values, and they cannot be restored.
#[tokio::test]
async fn values_that_violate_the_rules_are_shown_and_not_restored() {
    let app = start().await;
    let subject = &subjects()[1];
    let url = create(&app, subject.path, &subject.one).await;
    let client = app.database.as_ref().expect("own database").client().await;
    let odd = "alter table ledger drop constraint ledger_state; update ledger set state = 'lost'";
    client.batch_execute(odd).await.expect("altered");
    app.put(&url, &subject.other).await.expect(StatusCode::OK);
    let found = history(&app, &url).await;
    assert_eq!(found[0]["before"]["state"], "lost");
    let version = found[0]["versionBefore"].as_i64().expect("a version");
    let past = app.get(&format!("{url}?at={version}")).await;
    assert_eq!(past.expect(StatusCode::OK).json()["state"], "lost");
    let refused = restore(&app, &url, json!({"version": version})).await;
    assert_eq!(refused.pointers(), ["/state"]);
    // The manual change has no entry, so its time is unknown.
    assert_ne!(found[0]["versionBefore"], found[1]["versionAfter"]);
    let between = found[1]["changedAt"].as_str().expect("a time");
    let unknown = app.get(&format!("{url}?at={between}")).await.expect_problem(404, "not-found");
    assert!(unknown["detail"].as_str().expect("a text").contains("changed without a history entry"), "{unknown}");
}
