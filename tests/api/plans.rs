//! Plans that stay right: a statement that was planned on a small table reads no more when the table has grown.
//!
//! Keyed and paged requests are made on tables of a few rows, analysed or not, until PostgreSQL keeps their plans; then the
//! tables grow, nobody analyses them, and when the plans of before have passed their second the same requests are made
//! again on the same connections. PostgreSQL counts what they read by sequential scans: no row.

use std::time::Duration;

use futures_util::future::join_all;
use pycrudapi::db::pool::{Pool, PoolKind};
use pycrudapi::idempotency::store::forget;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{Answer, Database, Settings, TestApp, eventually, passenger, send};

/// Rows of each table when the statements are planned.
const BEFORE: [i64; 4] = [0, 1, 10, 891];
/// Rows of each table later.
const AFTER: i64 = 30_000;
/// A plan of PostgreSQL's own choice is kept from the sixth time on.
const TIMES: i64 = 7;
/// Enough at once that most of them share a statement.
const TOGETHER: i64 = 24;
const TABLES: &str = "'passengers', 'steps', 'air_quality', 'idempotency_keys'";

#[tokio::test(flavor = "multi_thread")]
async fn statements_planned_on_small_tables_go_through_their_indexes_when_the_tables_have_grown() {
    for rows in BEFORE {
        for analysed in [false, true] {
            let database = Database::migrated().await;
            let client = database.client().await;
            client.batch_execute(&settings()).await.expect("autovacuum is off");
            fill(&client, 1, rows).await;
            if analysed {
                client.batch_execute("analyze").await.expect("analysed");
            }
            // One connection each, so that those which planned early run everything later.
            let flags = ["--pool-size=2", "--list-pool-size=1"];
            let mut app = TestApp::start_on(&database.conninfo(), &flags).await;
            let pool = Pool::new(&database.conninfo(), &Settings::parse(&flags).database.pool_options(PoolKind::Keys));
            ask_for_everything(&app, &pool, rows).await;
            fill(&client, rows + 1, AFTER).await;
            // Plans are kept for a second: their age is a time itself, so there is nothing else to wait for.
            tokio::time::sleep(Duration::from_secs(1)).await;
            ask_for_everything(&app, &pool, AFTER).await;
            app.stop().await;
            drop((app, pool));
            judge(&client, &format!("{rows} rows, analysed: {analysed}")).await;
        }
    }
}

fn settings() -> String {
    let off = |table: &str| format!("alter table {table} set (autovacuum_enabled = false);");
    TABLES.split(", ").map(|table| off(table.trim_matches('\''))).collect()
}

/// The uuid of a passenger, by its number.
fn uuid(number: i64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn fill(client: &Client, from: i64, to: i64) {
    let each = [
        "insert into passengers select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n % 2 = 0, 1 + n % 3, \
         'Number ' || n, 'male', case when n % 5 > 0 then n % 80 end, n % 5, n % 7, n % 500 \
         from generate_series($1::bigint, $2) n",
        "insert into steps (ts, component, version, owner, status) \
         select timestamptz '2026-01-01 00:00:00Z' + n * interval '1 second', 'c' || n % 7, '1.' || n / 100, 'o' || n % 3, \
         's' || n % 4 from generate_series($1::bigint, $2) n",
        "insert into air_quality select 's' || n % 50, timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute', \
         1, 1, 1, 1, 1, 1 from generate_series($1::bigint, $2) n",
        "insert into idempotency_keys (key, fingerprint, status, content_type, body) \
         select 'key ' || n, decode(repeat('00', 16), 'hex'), 201, 'text/plain', '' from generate_series($1::bigint, $2) n",
    ];
    for sql in each {
        client.execute(sql, &[&from, &to]).await.expect("inserted");
    }
}

/// Every request whose statement finds rows by key, or a page of them in an order.
async fn ask_for_everything(app: &TestApp, pool: &Pool, rows: i64) {
    let there = |number: i64| format!("/v1/passengers/{}", uuid(1 + number % rows.max(1)));
    let missing = |number: i64| format!("/v1/passengers/ffffffff-0000-4000-8000-{number:012}");
    let found = if rows > 0 { StatusCode::OK } else { StatusCode::NOT_FOUND };
    for time in 0..TIMES {
        let url = there(time * 31);
        app.get(&url).await.expect(found);
        app.put(&url, &passenger()).await.expect(found);
        patch(app, &url).await.expect(found);
        app.delete(&missing(time)).await.expect(StatusCode::NOT_FOUND);
        let stale = app.request(Method::PUT, &url).header("if-match", "\"0\"").json(&passenger());
        send(stale).await.expect(if rows > 0 { StatusCode::PRECONDITION_FAILED } else { StatusCode::NOT_FOUND });
        app.post("/v1/passengers", &passenger()).await.expect(StatusCode::CREATED);
        let key = format!("{rows} {time}");
        for path in ["/v1/passengers", "/v1/steps?component=c1&version=1.0&owner=o1&status=done"] {
            for _ in 0..2 {
                let request = app.request(Method::POST, path).header("idempotency-key", format!("{path} {key}"));
                let request = if path.contains('?') { request } else { request.json(&passenger()) };
                send(request).await.expect(StatusCode::CREATED);
            }
        }
        let step = format!("/v1/steps?component=c{}&version=1.{time}&owner=o1&status=s1", time % 3);
        send(app.request(Method::POST, &step)).await.expect(StatusCode::CREATED);
        join_all((0..TOGETHER).map(|n| app.get(&there(n * 17)).into_future())).await;
        join_all((0..TOGETHER).map(|n| async move { app.put(&there(n * 17), &json!(passenger())).await })).await;
        join_all((0..TOGETHER).map(|n| async move { patch(app, &there(n * 17)).await })).await;
        join_all((0..TOGETHER).map(|n| app.delete(&missing(n)).into_future())).await;
        forget(pool, Duration::from_secs(3600), 10).await.expect("nothing is old");
        pages(app).await;
        steps(app, time).await;
        let station = format!("/v1/air-quality?entity=none{time}");
        app.get(&station).await.expect(StatusCode::OK);
    }
}

async fn patch(app: &TestApp, url: &str) -> Answer {
    let request = app.request(Method::PATCH, url).header("content-type", "application/merge-patch+json");
    send(request.body(r#"{"age":30}"#)).await
}

/// The first page, the one behind it, and the one before that, in each order that an index has.
async fn pages(app: &TestApp) {
    for order in
        ["uuid", "uuid.desc", "age", "age.desc", "siblingsOrSpousesAboard", "parentsOrChildrenAboard", "fare", "name"]
    {
        let first = app.get(&format!("/v1/passengers?limit=3&order={order}")).await;
        first.expect(StatusCode::OK);
        let Some(next) = link(&first, "next") else { continue };
        let second = app.get(&next).await;
        second.expect(StatusCode::OK);
        app.get(&link(&second, "prev").expect("there is a page before")).await.expect(StatusCode::OK);
    }
}

async fn steps(app: &TestApp, time: i64) {
    for filter in ["", "&component=c1", "&owner=o1", "&component=c1&owner=o1", "&component=none", "&owner=none"] {
        for after in ["", "&after=1"] {
            app.get(&format!("/v1/steps?format=json&limit=3{filter}{after}")).await.expect(StatusCode::OK);
        }
    }
    for filter in ["", "&component=c1", "&component=none"] {
        app.get(&format!("/v1/steps/durations?limit={}{filter}", 1 + time % 3)).await.expect(StatusCode::OK);
    }
}

/// The path and query of a neighbouring page.
fn link(answer: &Answer, relation: &str) -> Option<String> {
    let links = answer.headers.get("link")?.to_str().expect("printable");
    let link = links.split(", ").find(|link| link.ends_with(&format!("rel=\"{relation}\"")))?;
    Some(link.split_once('<').expect("a target").1.split_once('>').expect("a target").0.to_owned())
}

/// Sessions have told what they read at the latest when they have ended.
async fn judge(client: &Client, case: &str) {
    eventually(|| async {
        let others = "select count(*) from pg_stat_activity \
                      where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
        let left: i64 = client.query_one(others, &[]).await.expect("counted").get(0);
        if left == 0 { Ok(()) } else { Err(format!("{left} sessions are left")) }
    })
    .await;
    let scans = format!("select relname::text, seq_tup_read from pg_stat_user_tables where relname in ({TABLES})");
    for row in client.query(&scans, &[]).await.expect("counted") {
        let (table, read): (&str, i64) = (row.get(0), row.get(1));
        assert_eq!(read, 0, "{case}: sequential scans of {table}");
    }
}
