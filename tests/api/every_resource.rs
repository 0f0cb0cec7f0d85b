//! Conditional requests, patches, refusals, safe retries and batches, for every resource.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Database, TestApp};
use crate::subjects::{Subject, flag, subjects};

/// Enough concurrent requests that most of them share a statement.
const TOGETHER: usize = 64;

/// The row without server-generated members.
fn fields_of(answer: &Answer) -> Value {
    let mut row = answer.json();
    row.as_object_mut().expect("a row").remove("uuid").expect("a key");
    row
}

async fn created(app: &TestApp, subject: &Subject, body: &Value) -> (String, Answer) {
    let answer = app.post(subject.path, body).await;
    (answer.expect(StatusCode::CREATED).header("location").to_owned(), answer)
}

#[tokio::test]
async fn rows_are_read_as_written_and_each_field_can_be_patched_alone() {
    let app = TestApp::start_with(&[&flag()]).await;
    for subject in subjects() {
        let (url, answer) = created(&app, &subject, &subject.one).await;
        assert_eq!(fields_of(&answer), subject.one);
        let mut expected = subject.one.clone();
        for field in subject.fields() {
            expected[field] = subject.other[field].clone();
            let patch = Some(json!({field: subject.other[field]}));
            let patched = app.conditional(Method::PATCH, &url, &[], patch).await;
            assert_eq!(fields_of(patched.expect(StatusCode::OK)), expected, "{field}");
        }
        assert_eq!(fields_of(&app.get(&url).await), subject.other);
        assert_eq!(fields_of(&app.put(&url, &subject.one).await), subject.one);
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        app.get(&url).await.expect_problem(404, "not-found");
    }
}

#[tokio::test]
async fn the_rules_of_each_field_apply_to_every_write_operation() {
    let app = TestApp::start_with(&[&flag()]).await;
    for subject in subjects() {
        let (url, _) = created(&app, &subject, &subject.one).await;
        for field in subject.fields() {
            let mut body = subject.one.clone();
            body[field] = subject.wrong[field].clone();
            let pointer = [format!("/{field}")];
            let patch = Some(json!({field: subject.wrong[field]}));
            for answer in [
                app.post(subject.path, &body).await,
                app.put(&url, &body).await,
                app.conditional(Method::PATCH, &url, &[], patch).await,
            ] {
                answer.expect_problem(422, "invalid-fields");
                assert_eq!(answer.pointers(), pointer, "{}", answer.body);
            }
            let many = app.post(subject.path, &json!([subject.one, body])).await.expect_problem(422, "invalid-fields");
            assert_eq!(many["errors"][0]["pointer"], format!("/1/{field}"));
        }
        let all = app.post(subject.path, &subject.wrong).await;
        all.expect_problem(422, "invalid-fields");
        assert_eq!(all.pointers(), subject.fields().map(|field| format!("/{field}")).collect::<Vec<_>>());
        assert_eq!(app.get(subject.path).await.json().as_array().map(Vec::len), Some(1), "no other row is stored");
        assert_eq!(fields_of(&app.get(&url).await), subject.one);
    }
}

#[tokio::test]
async fn if_match_prevents_lost_updates() {
    let app = TestApp::start_with(&[&flag()]).await;
    for subject in subjects() {
        let (url, answer) = created(&app, &subject, &subject.one).await;
        let stale = answer.header("etag").to_owned();
        let changed = app.conditional(Method::PUT, &url, &[("if-match", &stale)], Some(subject.other.clone())).await;
        let current = changed.expect(StatusCode::OK).header("etag").to_owned();
        assert_ne!(current, stale);
        let field = subject.fields().next().expect("one field");
        let patch = json!({field: subject.one[field]});
        for (method, body) in
            [(Method::PUT, Some(subject.one.clone())), (Method::PATCH, Some(patch.clone())), (Method::DELETE, None)]
        {
            let refused = app.conditional(method, &url, &[("if-match", &stale)], body).await;
            refused.expect_problem(412, "precondition-failed");
        }
        assert_eq!(fields_of(&app.get(&url).await), subject.other);
        let unchanged = app.conditional(Method::GET, &url, &[("if-none-match", &current)], None).await;
        unchanged.expect(StatusCode::NOT_MODIFIED);
        // Of many clients with the same state, one succeeds.
        let headers = [("if-match", current.as_str())];
        let patches = (0..TOGETHER).map(|_| app.conditional(Method::PATCH, &url, &headers, Some(patch.clone())));
        let answers = join_all(patches).await;
        let won = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        let lost = answers.iter().filter(|answer| answer.status == StatusCode::PRECONDITION_FAILED).count();
        assert_eq!((won, lost), (1, TOGETHER - 1));
        let again = app.get(&url).await;
        let gone = app.conditional(Method::DELETE, &url, &[("if-match", again.header("etag"))], None).await;
        gone.expect(StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_from_every_replica() {
    let database = Database::migrated().await;
    let servers = [
        TestApp::start_on(&database.conninfo(), &[&flag()]).await,
        TestApp::start_on(&database.conninfo(), &[&flag()]).await,
    ];
    for subject in subjects() {
        for (number, (body, rows)) in
            [(subject.one.clone(), 1), (json!([subject.one, subject.other]), 2)].into_iter().enumerate()
        {
            let before = servers[0].get(subject.path).await.json().as_array().map_or(0, Vec::len);
            let key = format!("{} {number}", subject.path);
            let headers = [("idempotency-key", key.as_str())];
            let first = servers[0].conditional(Method::POST, subject.path, &headers, Some(body.clone())).await;
            first.expect(StatusCode::CREATED);
            for server in &servers {
                let again = server.conditional(Method::POST, subject.path, &headers, Some(body.clone())).await;
                assert_eq!((again.status, &again.body), (first.status, &first.body));
                assert_eq!(again.header("idempotency-replayed"), "true");
            }
            let other = Some(json!([subject.other]));
            let reused = servers[1].conditional(Method::POST, subject.path, &headers, other).await;
            reused.expect_problem(422, "idempotency-key-reused");
            let after = servers[0].get(subject.path).await.json().as_array().map_or(0, Vec::len);
            assert_eq!(after, before + rows);
        }
    }
}

#[tokio::test]
async fn requests_that_share_a_statement_get_their_own_responses() {
    let app = TestApp::start_with(&[&flag()]).await;
    for subject in subjects() {
        let bodies: Vec<&Value> =
            (0..TOGETHER).map(|number| if number % 3 == 0 { &subject.other } else { &subject.one }).collect();
        let answers = join_all(bodies.iter().map(|body| app.post(subject.path, body))).await;
        let urls: Vec<String> = answers.iter().map(|answer| answer.header("location").to_owned()).collect();
        for (answer, body) in answers.iter().zip(&bodies) {
            assert_eq!(fields_of(answer), **body);
        }
        let read = join_all(urls.iter().map(|url| app.get(url))).await;
        for ((url, answer), body) in urls.iter().zip(&read).zip(&bodies) {
            assert!(url.ends_with(answer.json()["uuid"].as_str().expect("a key")), "{url}: {}", answer.body);
            assert_eq!(fields_of(answer), **body);
        }
        let replaced = join_all(urls.iter().zip(bodies.iter().rev()).map(|(url, body)| app.put(url, body))).await;
        for ((url, answer), body) in urls.iter().zip(&replaced).zip(bodies.iter().rev()) {
            assert!(url.ends_with(answer.json()["uuid"].as_str().expect("a key")), "{url}: {}", answer.body);
            assert_eq!(fields_of(answer), **body);
        }
        let deleted = join_all(urls.iter().map(|url| app.delete(url))).await;
        assert!(deleted.iter().all(|answer| answer.status == StatusCode::NO_CONTENT));
    }
}
