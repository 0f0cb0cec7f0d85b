//! Cached plans stay efficient: a statement planned on a small table reads no more than necessary after the table has grown.
//!
//! Keyed and paged requests run on tables of a few rows, analysed or not, until PostgreSQL keeps their plans. Then the tables
//! grow without being analysed, and once the old plans have exceeded their lifetime of a second, the same requests run again on
//! the same connections. PostgreSQL counts what they read: no more index entries than the responses need, and no more blocks
//! than a server reads that starts after ANALYZE.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use futures_util::future::join_all;
use pycrudapi::db::pool::{Pool, PoolKind};
use pycrudapi::idempotency::store::delete_expired;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{ASKED, Answer, Database, Settings, TestApp, eventually, passenger, resources, send};

/// Rows of each table when the statements are planned.
const BEFORE: [i64; 4] = [0, 1, 10, 891];
/// Rows of each table after growth.
const AFTER: i64 = 15_000;
/// Entries of the history after growth.
const ENTRIES_AFTER: i64 = 100_000;
/// PostgreSQL keeps a generic plan from the sixth execution on.
const KEPT: i64 = 6;
/// Number of repetitions of all requests after growth.
const AGAIN: i64 = 2;
/// Enough concurrent requests that most of them share a statement.
const TOGETHER: i64 = 24;
const TABLES: [&str; 5] = ["passengers", "passengers_history", "steps", "air_quality", "idempotency_keys"];
/// More index entries than one round of all requests needs; for example, all rows that share a fare are sorted.
const ENTRIES_NEEDED: i64 = 1000;
/// A full index scan reads more blocks than this, and a row-by-row read of a table many more.
const BLOCKS_LEFT_OPEN: i64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn plans_made_on_small_tables_read_as_little_as_new_plans_after_the_tables_have_grown() {
    join_all(BEFORE.into_iter().flat_map(|rows| [grow(rows, false), grow(rows, true)])).await;
}

async fn grow(rows: i64, analysed: bool) {
    let database = &Database::migrated().await;
    for table in TABLES {
        run(database, &format!("alter table {table} set (autovacuum_enabled = false)")).await;
    }
    fill(database, 1, rows).await;
    if analysed {
        run(database, "analyze").await;
    }
    let early = Requester::start(database).await;
    early.send_every_request(0..KEPT, rows).await;
    fill(database, rows + 1, AFTER).await;
    // Plans are kept for a second; their age depends on the clock alone, so there is no other condition to wait for.
    tokio::time::sleep(Duration::from_secs(1)).await;
    run(database, "select pg_stat_reset()").await;
    early.send_every_request(KEPT..KEPT + AGAIN, AFTER).await;
    early.stop().await;
    let unanalysed = Reads::of(database).await;

    run(database, "analyze").await;
    let late = Requester::start(database).await;
    run(database, "select pg_stat_reset()").await;
    late.send_every_request(KEPT + AGAIN..KEPT + 2 * AGAIN, AFTER).await;
    late.stop().await;
    let enough = Reads::of(database).await;
    let case = format!("{rows} rows, analysed: {analysed}");
    for (name, blocks) in unanalysed.blocks {
        let enough = enough.blocks[&name];
        let told = format!("{case}: {blocks} blocks of {name}, {enough} after ANALYZE");
        assert!(blocks <= enough + enough / 2 + BLOCKS_LEFT_OPEN, "{told}");
    }
    for (name, entries) in unanalysed.entries {
        assert!(entries <= AGAIN * ENTRIES_NEEDED, "{case}: {entries} entries of {name}");
    }
}

/// Changes have no order that leaves only one suitable index, so the planner chooses among indexes of equal cost.
#[tokio::test]
async fn changes_use_the_primary_key_index_even_on_small_tables() {
    for rows in [0, 1, 2, 4, 10] {
        let database = Database::migrated().await;
        fill(&database, 1, rows).await;
        let client = database.client().await;
        client.batch_execute("analyze; set enable_seqscan = off; set enable_bitmapscan = off").await.expect("set");
        client.batch_execute("set plan_cache_mode = force_generic_plan").await.expect("set");
        client.batch_execute("prepare one (uuid) as delete from passengers where uuid = $1").await.expect("prepared");
        client
            .batch_execute("prepare many (uuid[]) as delete from passengers where uuid = any($1)")
            .await
            .expect("prepared");
        for statement in ["one(null)", "many(null)"] {
            let plan = client.query(&format!("explain execute {statement}"), &[]).await.expect("explained");
            let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
            assert!(plan[1].contains("passengers_pkey"), "{rows} rows: {plan:?}");
        }
    }
}

/// Runs statements on a separate connection and waits until PostgreSQL has recorded their statistics.
async fn run(database: &Database, sql: &str) {
    let client = database.client().await;
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.expect("a process").get(0);
    client.batch_execute(sql).await.expect(sql);
    drop(client);
    until_ended(database, &format!("pid = {pid}")).await;
}

/// Sessions report their statistics at the latest when they end.
async fn until_ended(database: &Database, which: &str) {
    let client = &database.client().await;
    let sql = &format!(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and backend_type = 'client backend' and pid <> pg_backend_pid() and {which}"
    );
    eventually(|| async move {
        let left: i64 = client.query_one(sql, &[]).await.expect("counted").get(0);
        if left == 0 { Ok(()) } else { Err(format!("{left} sessions are left")) }
    })
    .await;
}

/// What was read since the counters were reset.
struct Reads {
    /// Blocks read of each table and index, from the buffer cache or from disk.
    blocks: BTreeMap<String, i64>,
    /// Rows read by sequential scans of each table, and entries returned by scans of each index.
    entries: BTreeMap<String, i64>,
}

impl Reads {
    async fn of(database: &Database) -> Self {
        let client = database.client().await;
        let names = TABLES.map(|table| format!("'{table}'")).join(", ");
        let read = async |table: &str, index: &str| -> BTreeMap<String, i64> {
            let sql = format!(
                "select relname::text, {table} from pg_stat_user_tables join pg_statio_user_tables using (relid, relname) \
                 where relname in ({names}) union all select indexrelname::text, {index} \
                 from pg_stat_user_indexes join pg_statio_user_indexes using (indexrelid, indexrelname, relname) \
                 where relname in ({names})"
            );
            let rows = client.query(&sql, &[]).await.expect("counted");
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        };
        Self {
            blocks: read("heap_blks_read + heap_blks_hit", "idx_blks_read + idx_blks_hit").await,
            entries: read("seq_tup_read", "idx_tup_read").await,
        }
    }
}

/// The uuid of a passenger by its number.
fn uuid(number: i64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Fills each table with the rows of these numbers.
async fn fill(database: &Database, from: i64, to: i64) {
    let each = [
        "insert into passengers select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n % 2 = 0, 1 + n % 3, \
         'Number ' || n, 'male', case when n % 5 > 0 then n % 80 end, n % 5, n % 7, n % 500 \
         from generate_series({from}, {to}) n",
        // Each row has several entries, which are spread over the table.
        "insert into passengers_history (uuid, operation, changed_at, version_before, version_after, before) \
         select ('00000000-0000-4000-8000-' || lpad((1 + n % (1 + {to} / 3))::text, 12, '0'))::uuid, 'replace', \
         now() - interval '1 hour', n, n + 1, '{}' from generate_series({from}, {entries}) n",
        "insert into steps (ts, component, version, owner, status) \
         select timestamptz '2026-01-01 00:00:00Z' + n * interval '1 second', 'c' || n % 7, '1.' || n / 100, 'o' || n % 3, \
         's' || n % 4 from generate_series({from}, {to}) n",
        "insert into air_quality select 's' || n % 50, timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute', \
         1, 1, 1, 1, 1, 1 from generate_series({from}, {to}) n",
        "insert into idempotency_keys (key, fingerprint, status, content_type, body) \
         select 'key ' || n, decode(repeat('00', 16), 'hex'), 201, 'text/plain', '' from generate_series({from}, {to}) n",
    ];
    let entries = if to == AFTER { ENTRIES_AFTER } else { to };
    for sql in each {
        let numbers = [("{from}", from), ("{to}", to), ("{entries}", entries)];
        let sql = numbers.iter().fold(sql.to_owned(), |sql, (name, number)| sql.replace(name, &number.to_string()));
        run(database, &sql).await;
    }
}

/// A server, and the removal of idempotency keys, with one connection each for rows and for lists, so that later requests run
/// on the connections on which statements were planned early.
struct Requester<'a> {
    database: &'a Database,
    app: TestApp,
    pool: Pool,
}

impl<'a> Requester<'a> {
    async fn start(database: &'a Database) -> Self {
        let flags = ["--pool-size=1", "--list-pool-size=1"];
        let app = TestApp::start_on(&database.conninfo(), &flags).await;
        let pool = Pool::new(&database.conninfo(), &Settings::parse(&flags).database.pool_options(PoolKind::Keys));
        Self { database, app, pool }
    }

    async fn stop(mut self) {
        self.app.stop().await;
        drop((self.app, self.pool));
        until_ended(self.database, "true").await;
    }

    /// Every request whose statement finds rows by key or reads an ordered page. Each repetition has its own number.
    async fn send_every_request(&self, times: Range<i64>, rows: i64) {
        let app = &self.app;
        let there = |number: i64| format!("/v1/passengers/{}", uuid(1 + number % rows.max(1)));
        let missing = |number: i64| format!("/v1/passengers/ffffffff-0000-4000-8000-{number:012}");
        let found = if rows > 0 { StatusCode::OK } else { StatusCode::NOT_FOUND };
        for time in times {
            let url = there(time * 31);
            app.get(&url).await.expect(found);
            app.put(&url, &passenger()).await.expect(found);
            patch(app, &url).await.expect(found);
            app.delete(&missing(time)).await.expect(StatusCode::NOT_FOUND);
            let stale = app.request(Method::PUT, &url).header("if-match", "\"0\"").json(&passenger());
            send(stale).await.expect(if rows > 0 { StatusCode::PRECONDITION_FAILED } else { StatusCode::NOT_FOUND });
            app.post("/v1/passengers", &passenger()).await.expect(StatusCode::CREATED);
            let key = time.to_string();
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
            delete_expired(&self.pool, Duration::from_secs(3600), 10).await.expect("nothing is old");
            let history = resources()[0].sql.history.as_ref().expect("passengers have one");
            self.pool.write(&ASKED, history.prune, &[&86400.0, &10_i64]).await.expect("nothing is old");
            past(app, &url, found).await;
            app.delete(&there(time * 31 + 7)).await.expect(if rows > 0 {
                StatusCode::NO_CONTENT
            } else {
                StatusCode::NOT_FOUND
            });
            let restored = app.post(&format!("{}/restore", there(time * 31 + 7)), &json!({})).await;
            restored.expect(if rows > 0 { StatusCode::OK } else { StatusCode::NOT_FOUND });
            pages(app).await;
            steps(app, time).await;
            let station = format!("/v1/air-quality?entity=none{time}");
            app.get(&station).await.expect(StatusCode::OK);
        }
    }
}

async fn patch(app: &TestApp, url: &str) -> Answer {
    let request = app.request(Method::PATCH, url).header("content-type", "application/merge-patch+json");
    send(request.body(r#"{"age":30}"#)).await
}

/// The history of a row, and an earlier version of it.
async fn past(app: &TestApp, url: &str, found: StatusCode) {
    let first = app.get(&format!("{url}/history?limit=1")).await;
    first.expect(found);
    if let Some(next) = link(&first, "next") {
        let second = app.get(&next).await;
        second.expect(StatusCode::OK);
        app.get(&link(&second, "prev").expect("there is a page before")).await.expect(StatusCode::OK);
    }
    for at in ["1", "9223372036854775807", "2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"] {
        let answer = app.get(&format!("{url}?at={at}")).await;
        assert!([StatusCode::OK, StatusCode::NOT_FOUND].contains(&answer.status), "{}", answer.body);
    }
    let version = first.json()[0]["versionBefore"].as_i64();
    if let Some(version) = version {
        app.post(&format!("{url}/restore"), &json!({"version": version})).await.expect(StatusCode::OK);
    }
}

/// The first page, the next one, and the previous one of that, in each order that has an index.
async fn pages(app: &TestApp) {
    for order in [
        "uuid",
        "uuid.desc",
        "age",
        "age.desc",
        "age.nullsfirst",
        "siblingsOrSpousesAboard",
        "parentsOrChildrenAboard",
        "fare",
        "name",
    ] {
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
