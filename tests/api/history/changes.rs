//! Which changes have history entries, and the order of the entries.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use pycrudapi::db::copy::{self, Input};
use pycrudapi::db::pool::{Pool, PoolKind};
use pycrudapi::db::version::Precondition;
use pycrudapi::resource::actor::Actor;
use pycrudapi::resource::json::{self as rows, UuidRule};
use pycrudapi::resource::store::Store;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{create, entries, entries_of, history, operations, part, patch, post_as, restore, start, version};
use crate::harness::{Settings, TestApp, resources};
use crate::subjects::{Subject, flag, subjects};

/// Number of clients that change the same rows concurrently.
const CLIENTS: usize = 48;
const ROWS: usize = 6;
const CHANGES: usize = 12;

#[tokio::test]
async fn each_kind_of_change_has_one_entry() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        let uuid = url.rsplit('/').next().expect("a uuid").to_owned();
        let mut states = vec![app.get(&url).await];
        states.push(app.put(&url, &subject.other).await);
        states.push(patch(&app, &url, &part(&subject)).await);
        let deleted = app.delete(&url).await;
        deleted.expect(StatusCode::NO_CONTENT);
        states.push(restore(&app, &url, json!({})).await);
        states.push(restore(&app, &url, json!({"version": version(&states[0])})).await);
        for state in &states {
            state.expect(StatusCode::OK);
        }
        let found = history(&app, &url).await;
        assert_eq!(operations(&found), ["create", "replace", "patch", "delete", "restore", "restore"]);
        let versions: Vec<i64> = states.iter().map(version).collect();
        let row = |place: usize| states[place].json();
        let expected = [
            (Value::Null, json!(versions[0]), Value::Null),
            (json!(versions[0]), json!(versions[1]), row(0)),
            (json!(versions[1]), json!(versions[2]), row(1)),
            (json!(versions[2]), Value::Null, row(2)),
            (Value::Null, json!(versions[3]), Value::Null),
            (json!(versions[3]), json!(versions[4]), row(3)),
        ];
        let changes = [&states[1], &states[2], &deleted, &states[3], &states[4]];
        for (entry, change) in found.iter().rev().skip(1).zip(changes) {
            assert_eq!(entry["requestId"], change.header("x-request-id"), "{entry}");
        }
        for (entry, (before, after, values)) in found.iter().rev().zip(expected) {
            let reported = (&entry["versionBefore"], &entry["versionAfter"], &entry["before"]);
            assert_eq!(reported, (&before, &after, &values), "{entry}");
            assert_eq!(entry["changedBy"], Value::Null);
            assert!(entry["changedAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{entry}");
            assert_eq!(entry.as_object().expect("an object").len(), 7, "{entry}");
        }
        let mut sorted = versions.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), versions.len(), "a version was reused");
        assert_eq!(states[4].json(), row(0));
        assert_eq!(row(0)["uuid"], uuid);
    }
}

#[tokio::test]
async fn rows_created_together_have_an_entry_each() {
    for subject in subjects() {
        let app = start().await;
        let one = subject.one.to_string();
        let csv = {
            let names: Vec<&str> = subject.fields().collect();
            let cell = |name: &&str| match &subject.one[*name] {
                Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let line = names.iter().map(cell).collect::<Vec<_>>().join(",");
            format!("{}\n{line}\n{line}\n{line}\n", names.join(","))
        };
        let array = format!("[{}]", vec![one.as_str(); 3000].join(","));
        let mut expected = 0;
        for (headers, body, rows) in [
            (&[("content-type", "application/json")][..], one.clone(), 1),
            (&[("content-type", "application/json"), ("idempotency-key", "one")], one.clone(), 1),
            (&[("content-type", "application/json"), ("idempotency-key", "one")], one.clone(), 0),
            (&[("content-type", "application/json")], format!("[{one},{one}]"), 2),
            (&[("content-type", "application/json")], array, 3000),
            (&[("content-type", "application/json")], "[]".to_owned(), 0),
            (&[("content-type", "text/csv")], csv.clone(), 3),
            (&[("content-type", "application/x-ndjson")], format!("{one}\n{one}\n"), 2),
            (&[("content-type", "application/json"), ("idempotency-key", "two")], format!("[{one},{one}]"), 2),
            (&[("content-type", "application/json"), ("idempotency-key", "two")], format!("[{one},{one}]"), 0),
        ] {
            let answer = post_as(&app, subject.path, headers, body).await;
            assert!(answer.status.is_success(), "{}", answer.body);
            expected += rows;
            assert_eq!(entries(&app, &subject).await, expected, "{headers:?}");
            assert_eq!(entries_of(&app, &subject, answer.header("x-request-id")).await, rows, "{headers:?}");
        }
        // A failed change has no entry, even if only one of many rows is invalid.
        let bad = subject.wrong.to_string();
        for body in [bad.clone(), format!("[{one},{bad}]")] {
            post_as(&app, subject.path, &[("content-type", "application/json")], body)
                .await
                .expect_problem(422, "invalid-fields");
        }
        assert_eq!(entries(&app, &subject).await, expected);
        // Concurrent bulk creations do not count each other's rows.
        let bodies = (0..8).map(|_| post_as(&app, subject.path, &[("content-type", "text/csv")], csv.clone()));
        for answer in join_all(bodies).await {
            answer.expect(StatusCode::CREATED);
        }
        // Imported rows have entries as well.
        let table = subject.path.trim_start_matches("/v1/");
        let known = pycrudapi::resource::registry::load(Some(std::path::Path::new("tests/support/resources")), None);
        let known = known.expect("the descriptions are right");
        let resource = *known.iter().find(|resource| resource.table == table).expect("it is there");
        let mut client = app.database.as_ref().expect("own database").client().await;
        copy::import(resource, &mut client, Input::of(Cursor::new(csv)), false, |_| ()).await.expect("imported");
        expected += 8 * 3 + 3;
        assert_eq!(entries(&app, &subject).await, expected);
        let whole = format!(
            "select count(*) from {table} t join {table}_history h using (uuid) where h.version_after = t.version \
             and h.version_before is null and h.before is null and h.operation = 'create'"
        );
        let whole: i64 = client.query_one(&whole, &[]).await.expect("counted").get(0);
        assert_eq!(whole, expected, "each row must have exactly the entry of its creation");
    }
}

/// A change as reported by its response.
#[derive(Debug)]
struct Reported {
    operation: &'static str,
    version: Option<i64>,
    row: Option<Value>,
}

/// Clients change the same rows concurrently, so changes share statements, wait for each other and fail their conditions. Every
/// reported success is in the history, nothing else is, and each state of a row equals the state stored by the next change.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_have_a_gapless_history() {
    for subject in subjects() {
        run_concurrent_changes(&subject).await;
    }
}

async fn run_concurrent_changes(subject: &Subject) {
    // No request may time out on a busy machine.
    let flags = [&*flag(), "--checkout-timeout-ms=60000", "--statement-timeout-ms=60000"];
    let first = TestApp::start_with(&flags).await;
    let database = first.database.as_ref().expect("own database");
    let second = TestApp::start_on(&database.conninfo(), &flags).await;
    let reported: Mutex<BTreeMap<String, Vec<Reported>>> = Mutex::default();
    let report = |url: &str, operation, answer: &crate::harness::Answer| {
        let is_gone = operation == "delete";
        let one = Reported {
            operation,
            version: (!is_gone).then(|| version(answer)),
            row: (!is_gone).then(|| answer.json()),
        };
        reported.lock().expect("no panic").entry(url.to_owned()).or_default().push(one);
    };
    let mut urls = Vec::new();
    for _ in 0..ROWS {
        let answer = first.post(subject.path, &subject.one).await;
        let url = answer.header("location").to_owned();
        report(&url, "create", &answer);
        urls.push(url);
    }
    let (report, urls, part) = (&report, &urls, &part(subject));
    join_all((0..CLIENTS).map(|client| {
        let app = if client % 2 == 0 { &first } else { &second };
        async move {
            for turn in 0..CHANGES {
                let url = &urls[(client * 31 + turn * 17) % ROWS];
                let (operation, answer) = match (client / 2 + turn) % 8 {
                    0 | 1 => ("replace", app.put(url, if turn % 2 == 0 { &subject.one } else { &subject.other }).await),
                    2 | 3 => ("patch", patch(app, url, part).await),
                    4 => ("delete", app.delete(url).await),
                    5 => ("restore", restore(app, url, json!({})).await),
                    6 => {
                        let now = app.get(url).await;
                        if now.status != StatusCode::OK {
                            continue;
                        }
                        let tag = now.header("etag").to_owned();
                        let condition = [("if-match", tag.as_str())];
                        ("replace", app.conditional(Method::PUT, url, &condition, Some(subject.other.clone())).await)
                    }
                    _ => ("replace", app.put(url, &subject.wrong).await),
                };
                match answer.status.as_u16() {
                    200 | 204 => report(url, operation, &answer),
                    404 | 409 | 412 | 422 => {}
                    other => panic!("{operation}: {other} {}", answer.body),
                }
            }
        }
    }))
    .await;
    for (url, reported) in reported.into_inner().expect("no panic") {
        let found = history(&first, &url).await;
        let count = |operation: &str| reported.iter().filter(|reported| reported.operation == operation).count();
        for operation in ["create", "replace", "patch", "delete", "restore"] {
            let found = found.iter().filter(|entry| entry["operation"] == operation).count();
            assert_eq!(found, count(operation), "{operation} of {url}");
        }
        let mut last = Value::Null;
        let mut last_at = String::new();
        for entry in found.iter().rev() {
            assert_eq!(entry["versionBefore"], last, "{entry}");
            let state = reported
                .iter()
                .find(|reported| json!(reported.version) == last)
                .and_then(|reported| reported.row.clone());
            assert_eq!(
                entry["before"],
                if last.is_null() { Value::Null } else { state.expect("it was reported") },
                "{entry}"
            );
            let at = entry["changedAt"].as_str().expect("a time").to_owned();
            assert!(at > last_at, "{at} does not follow {last_at}");
            (last, last_at) = (entry["versionAfter"].clone(), at);
        }
        let now = first.get(&url).await;
        let now = if now.status == StatusCode::OK { json!(version(&now)) } else { Value::Null };
        assert_eq!(last, now);
    }
}

/// A batch rolled back by PostgreSQL is executed again row by row: rolled-back changes have no entry.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_refused_by_the_database_has_no_entry_while_others_in_its_batch_have_one() {
    let subject = &subjects()[0];
    let app = start().await;
    let client = app.database.as_ref().expect("own database").client().await;
    let narrow =
        "alter table passengers drop constraint passengers_fare, add constraint passengers_fare check (fare <> 66)";
    client.batch_execute(narrow).await.expect("altered");
    let mut bad = subject.one.clone();
    bad["fare"] = json!(66);
    let (bad, good) = (&bad, &subject.one);
    let urls: Vec<String> = join_all((0..20).map(|_| create(&app, subject.path, good))).await;
    let before = entries(&app, subject).await;
    let writes = urls.iter().enumerate().map(|(place, url)| app.put(url, if place % 5 == 0 { bad } else { good }));
    let refused =
        join_all(writes).await.iter().filter(|answer| answer.status == StatusCode::UNPROCESSABLE_ENTITY).count();
    assert_eq!((refused, entries(&app, subject).await), (4, before + 16));
    let writes = (0..20).map(|place| app.post(subject.path, if place % 5 == 0 { bad } else { good }));
    let refused =
        join_all(writes).await.iter().filter(|answer| answer.status == StatusCode::UNPROCESSABLE_ENTITY).count();
    assert_eq!((refused, entries(&app, subject).await), (4, before + 32));
}

/// Changes of several principals share a statement: each entry has the name and the request id of its own change.
#[tokio::test]
async fn changes_that_share_a_statement_keep_their_own_principals() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().expect("own database");
    let settings = Settings::parse(&[]);
    let pool =
        Pool::new(&crate::harness::with_roles(&database.conninfo()), &settings.database.pool_options(PoolKind::Keys));
    let store = &Store::new(resources()[0], &pool, Duration::from_secs(20));
    let body = subjects()[0].one.to_string();
    let values = || rows::read(resources()[0], body.as_bytes(), UuidRule::Refused, None).expect("a row");
    let by = |number: usize| Actor {
        name: (!number.is_multiple_of(3)).then(|| format!("token:{number}").into()),
        request_id: (!number.is_multiple_of(4)).then(|| format!("request {number}").try_into().expect("printable")),
    };
    let made = join_all((0..40).map(|number| store.create(values(), by(number)))).await;
    let keys: Vec<_> = made.into_iter().map(|made| made.expect("created").0).collect();
    let none = || Precondition::NONE;
    let keys = &keys;
    for outcome in join_all((0..40).map(|number| store.replace(keys[number], values(), none(), by(number + 1)))).await {
        outcome.expect("replaced");
    }
    let nothing = || vec![None; resources()[0].fields().len()];
    for outcome in join_all((0..40).map(|number| store.patch(keys[number], nothing(), none(), by(number + 2)))).await {
        outcome.expect("patched");
    }
    for outcome in join_all((0..40).map(|number| store.delete(keys[number], none(), by(number + 3)))).await {
        outcome.expect("deleted");
    }
    for (number, key) in keys.iter().enumerate() {
        let found = history(&app, &format!("/v1/passengers/{key}")).await;
        for (turn, entry) in found.iter().rev().enumerate() {
            let reported = (entry["changedBy"].as_str(), entry["requestId"].as_str());
            assert_eq!(reported, by(number + turn).recorded(), "{entry}");
        }
        assert_eq!(found.len(), 4);
    }
}

/// A resource without a history has no history table, no history URL and no `at` parameter.
#[tokio::test]
async fn a_resource_without_a_history_has_no_table_url_or_parameter_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("notes.toml"),
        "name = \"notes\"\n[[column]]\nname = \"text\"\ntype = \"string\"\n",
    )
    .expect("written");
    let app = TestApp::start_with(&[&format!("--resources-dir={}", folder.path().display())]).await;
    let url = create(&app, "/v1/notes", &json!({"text": "a"})).await;
    for path in [format!("{url}/history"), format!("{url}/restore")] {
        app.get(&path).await.expect_problem(404, "not-found");
        app.post(&path, &json!({})).await.expect_problem(404, "not-found");
    }
    app.get(&format!("{url}?at=1")).await.expect_problem(400, "invalid-query");
    let client = app.database.as_ref().expect("own database").client().await;
    let there: bool =
        client.query_one("select to_regclass('notes_history') is not null", &[]).await.expect("queried").get(0);
    assert!(!there);
}
