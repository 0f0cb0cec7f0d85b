//! Earlier states of rows, and the pages of a history.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{create, entries, history, link, operations, part, patch, restore, start, version};
use crate::harness::{TestApp, eventually};
use crate::subjects::{flag, subjects};

/// The time of an entry, counted from the newest.
fn changed_at(entries: &[Value], place: usize) -> String {
    entries[place]["changedAt"].as_str().expect("a time").to_owned()
}

#[tokio::test]
async fn a_damaged_entry_is_reported_by_its_version_wherever_it_is_read() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        let first = app.get(&url).await;
        let (version, table) = (version(&first).to_string(), subject.path.trim_start_matches("/v1/"));
        let replaced = app.put(&url, &subject.other).await;
        let time = changed_at(&history(&app, &url).await, 1);
        let client = app.database.as_ref().expect("own database").client().await;
        for damage in ["null", "[]", "7", "\"text\""] {
            let sql = format!("update {table}_history set before = '{damage}' where before is not null");
            client.batch_execute(&sql).await.expect("damaged");
            let answers = [
                app.get(&format!("{url}/history")).await,
                app.get(&format!("{url}?at={version}")).await,
                app.get(&format!("{url}?at={time}")).await,
                restore(&app, &url, json!({"version": version.parse::<i64>().expect("a number")})).await,
            ];
            for answer in answers {
                let detail = answer.expect_problem(500, "internal")["detail"].as_str().expect("a text").to_owned();
                assert!(detail.contains(&format!("version {version} ")), "{damage}: {detail}");
            }
            // The row itself and newer entries are unaffected.
            assert_eq!(app.get(&url).await.body, replaced.body);
        }
    }
}

#[tokio::test]
async fn a_row_can_be_read_as_of_a_version_and_as_of_a_time() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        let mut states = vec![app.get(&url).await, app.put(&url, &subject.other).await];
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        states.push(restore(&app, &url, json!({})).await);
        states.push(patch(&app, &url, &part(&subject)).await);
        let found = history(&app, &url).await;
        let check = async |at: String, state: &crate::harness::Answer| {
            let answer = app.get(&format!("{url}?at={at}")).await;
            answer.expect(StatusCode::OK);
            assert_eq!((&answer.body, answer.header("etag")), (&state.body, state.header("etag")), "{at}");
            let etag = state.header("etag").to_owned();
            let known =
                app.conditional(Method::GET, &format!("{url}?at={at}"), &[("if-none-match", &etag)], None).await;
            known.expect(StatusCode::NOT_MODIFIED);
            let other = app.conditional(Method::GET, &format!("{url}?at={at}"), &[("if-match", "\"1\"")], None).await;
            other.expect_problem(412, "precondition-failed");
        };
        for state in &states {
            check(version(state).to_string(), state).await;
        }
        // Newest first: patch, restore, delete, replace, create.
        for (place, state) in [(0, 3), (1, 2), (3, 1), (4, 0)] {
            check(changed_at(&found, place), &states[state]).await;
        }
        check("2999-01-01T00:00:00%2B02:00".to_owned(), &states[3]).await;
        let deleted = app.get(&format!("{url}?at={}", changed_at(&found, 2))).await;
        assert!(deleted.expect_problem(404, "not-found")["detail"].as_str().expect("a text").contains("deleted at"));
        let early = app.get(&format!("{url}?at=1999-12-31T23:59:59.5Z")).await;
        assert!(early.expect_problem(404, "not-found")["detail"].as_str().expect("a text").contains("created at"));
        app.get(&format!("{url}?at=1")).await.expect_problem(404, "not-found");
        app.get(&format!("{url}?at=9223372036854775807")).await.expect_problem(404, "not-found");
        for bad in ["", "yesterday", "2026-01-31", "%227%22", "9223372036854775808", "-1"] {
            app.get(&format!("{url}?at={bad}")).await.expect_problem(400, "invalid-query");
        }
        for bad in ["at=1&at=2", "as=1", "at=1&limit=1"] {
            app.get(&format!("{url}?{bad}")).await.expect_problem(400, "invalid-query");
        }
        // A deleted row can be read as it was, too.
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        for state in &states {
            check(version(state).to_string(), state).await;
        }
        check(changed_at(&found, 0), &states[3]).await;
        app.get(&url).await.expect_problem(404, "not-found");
        let other = format!("{}/0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10", subject.path);
        for path in [format!("{other}?at=2026-01-31T12:00:00Z"), format!("{other}?at=7"), format!("{other}/history")] {
            app.get(&path).await.expect_problem(404, "not-found");
        }
        app.get(&format!("{}/x/history", subject.path)).await.expect_problem(400, "invalid-uuid");
        app.delete(&format!("{url}/history")).await.expect_problem(405, "method-not-allowed");
    }
}

/// Connections draw versions in blocks, so versions do not ascend; entries do.
#[tokio::test]
async fn pages_lead_from_the_newest_entry_to_the_oldest_and_back_while_changes_go_on() {
    for subject in subjects() {
        let app = start().await;
        let url = create(&app, subject.path, &subject.one).await;
        for place in 0..9 {
            app.put(&url, if place % 2 == 0 { &subject.other } else { &subject.one }).await.expect(StatusCode::OK);
        }
        let whole = app.get(&format!("{url}/history")).await;
        let all: Vec<Value> = whole.json().as_array().expect("an array").clone();
        assert_eq!((all.len(), link(&whole, "next"), link(&whole, "prev")), (10, None, None));
        let (mut read, mut pages, mut next) = (Vec::new(), Vec::new(), Some(format!("{url}/history?limit=4")));
        while let Some(path) = next {
            let page = app.get(&path).await;
            page.expect(StatusCode::OK);
            read.extend(page.json().as_array().expect("an array").clone());
            next = link(&page, "next");
            pages.push(page);
            app.put(&url, &subject.one).await.expect(StatusCode::OK);
        }
        assert_eq!((&read, pages.len()), (&all, 3));
        let back = app.get(&link(&pages[2], "prev").expect("a page before")).await;
        assert_eq!(back.body, pages[1].body);
        let back = app.get(&link(&back, "prev").expect("a page before")).await;
        assert_eq!(back.body, pages[0].body);
        assert!(link(&back, "prev").is_some(), "newer entries were added meanwhile");
        let lines = app
            .conditional(Method::GET, &format!("{url}/history?limit=2"), &[("accept", "application/x-ndjson")], None)
            .await;
        assert_eq!(lines.body.lines().count(), 2);
        for bad in
            ["limit=0", "limit=1001", "limit=x", "after=x", "before=", "page=2", "after=ZW50cnkgMQ&before=ZW50cnkgMQ"]
        {
            app.get(&format!("{url}/history?{bad}")).await.expect_problem(400, "invalid-query");
        }
        let csv = app.conditional(Method::GET, &format!("{url}/history"), &[("accept", "text/csv")], None).await;
        csv.expect_problem(406, "not-acceptable");
    }
}

/// A table older than its history: its rows have no entries until they are changed.
#[tokio::test]
async fn an_existing_table_gets_a_history_at_startup() {
    for subject in subjects() {
        let mut app = start().await;
        let table = subject.path.trim_start_matches("/v1/");
        let url = create(&app, subject.path, &subject.one).await;
        let before = app.get(&url).await;
        app.stop().await;
        let database = app.database.take().expect("own database");
        let client = database.client().await;
        client.batch_execute(&format!("drop table {table}_history, {table}_history_since")).await.expect("dropped");
        let app = TestApp::start_on(&database.conninfo(), &[&flag()]).await;
        assert_eq!(app.get(&format!("{url}/history")).await.body, "[]");
        let unknown = app.get(&format!("{url}?at=2026-01-31T12:00:00Z")).await.expect_problem(404, "not-found");
        assert!(unknown["detail"].as_str().expect("a text").contains("is not kept"), "{unknown}");
        app.put(&url, &subject.other).await.expect(StatusCode::OK);
        let found = history(&app, &url).await;
        assert_eq!((found.len(), &found[0]["before"]), (1, &before.json()));
        let past = app.get(&format!("{url}?at={}", version(&before))).await;
        assert_eq!(past.expect(StatusCode::OK).body, before.body);
        app.get(&format!("{url}?at=2026-01-31T12:00:00Z")).await.expect_problem(404, "not-found");
    }
}

/// A history without the column of request ids: a server of an older release continues beside a current one.
#[tokio::test]
async fn a_history_without_request_ids_gets_the_column_while_an_older_release_writes() {
    for subject in subjects() {
        let mut app = start().await;
        let table = subject.path.trim_start_matches("/v1/");
        let url = create(&app, subject.path, &subject.one).await;
        app.stop().await;
        let database = app.database.take().expect("own database");
        let client = database.client().await;
        client.batch_execute(&format!("alter table {table}_history drop column request_id")).await.expect("dropped");
        let of_then = format!(
            "with changed as (update {table} p set version = nextval('{table}_version_seq') from {table} old \
             where p.uuid = old.uuid returning p.uuid, p.version, old.version as was, row_to_json(old.*) as before) \
             insert into {table}_history (uuid, operation, changed_by, version_before, version_after, before) \
             select uuid, 'patch', null, was, version, before from changed returning uuid, version_after"
        );
        let of_then = client.prepare(&of_then).await.expect("prepared");
        assert_eq!(client.query(&of_then, &[]).await.expect("changed").len(), 1);
        let app = TestApp::start_on(&database.conninfo(), &[&flag()]).await;
        app.until_ready().await;
        assert_eq!(client.query(&of_then, &[]).await.expect("changed").len(), 1);
        let changed = app.put(&url, &subject.other).await;
        assert_eq!(client.query(&of_then, &[]).await.expect("changed").len(), 1);
        let found = history(&app, &url).await;
        assert_eq!(operations(&found), ["create", "patch", "patch", "replace", "patch"]);
        let ids: Vec<_> = found.iter().filter_map(|entry| entry["requestId"].as_str()).collect();
        assert_eq!(ids, [changed.header("x-request-id")]);
    }
}

/// A backup reads the history for a long time while a release that adds a column starts: writers must wait for neither.
#[tokio::test]
async fn a_start_that_waits_for_a_reader_of_the_history_blocks_no_writer() {
    let mut app = start().await;
    let url = create(&app, "/v1/passengers", &subjects()[0].one).await;
    app.stop().await;
    let database = app.database.take().expect("own database");
    let (reader, writer) = (database.client().await, database.client().await);
    reader.batch_execute("alter table passengers_history drop column request_id").await.expect("dropped");
    reader.batch_execute("begin; select from passengers_history").await.expect("read");
    let app = TestApp::start_on(&database.conninfo(), &[&flag()]).await;
    let waits =
        "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter table%')";
    for _ in 0..2 {
        eventually(|| async {
            let waits: bool = writer.query_one(waits, &[]).await.expect("queried").get(0);
            if waits { Ok(()) } else { Err("no statement waits".to_owned()) }
        })
        .await;
        let change = "set statement_timeout = '20s'; update passengers set fare = fare; \
                      insert into passengers_history (uuid, operation) select uuid, 'patch' from passengers limit 1";
        writer.batch_execute(change).await.expect("changed while the reader reads");
    }
    assert_eq!(app.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    reader.batch_execute("commit").await.expect("read");
    app.until_ready().await;
    let changed = app.delete(&url).await;
    let found = history(&app, &url).await;
    assert_eq!(found[0]["requestId"], changed.header("x-request-id"));
}

#[tokio::test]
async fn entries_are_removed_after_their_retention_and_unknown_states_answer_404() {
    for subject in subjects() {
        let app = TestApp::start_with(&[&flag(), "--history-retention=1s"]).await;
        let url = create(&app, subject.path, &subject.one).await;
        let first = app.get(&url).await;
        let second = app.put(&url, &subject.other).await;
        let gone = create(&app, subject.path, &subject.one).await;
        app.delete(&gone).await.expect(StatusCode::NO_CONTENT);
        eventually(|| async {
            let left = entries(&app, &subject).await;
            if left == 0 { Ok(()) } else { Err(format!("{left} entries are left")) }
        })
        .await;
        assert_eq!(app.get(&format!("{url}/history")).await.body, "[]");
        app.get(&format!("{gone}/history")).await.expect_problem(404, "not-found");
        restore(&app, &gone, json!({})).await.expect_problem(404, "not-found");
        app.get(&format!("{url}?at={}", version(&first))).await.expect_problem(404, "not-found");
        // The current state is known since the last removed entry; earlier states are unknown.
        let now = app.get(&format!("{url}?at=2999-01-01T00:00:00Z")).await;
        assert_eq!(now.expect(StatusCode::OK).body, second.body);
        let unknown = app.get(&format!("{url}?at=2026-01-31T12:00:00Z")).await.expect_problem(404, "not-found");
        assert!(unknown["detail"].as_str().expect("a text").contains("is not kept"), "{unknown}");
    }
}
