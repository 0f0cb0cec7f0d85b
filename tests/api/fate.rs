//! A 503 states the outcome of a change correctly: "send it again" if nothing was carried out, "unknown" if that cannot be
//! determined.

use std::collections::HashSet;
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::join_all;
use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::migrate;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::failures::own_postgres;
use crate::harness::{Answer, Database, TestApp, eventually, passenger, passenger_with, send};
use crate::proxy::{Moment, Proxy};

/// A kind of change with its prepared request.
struct Case {
    name: &'static str,
    request: RequestBuilder,
    /// Query that counts how often the change was carried out.
    effect: String,
    /// Whether the change takes effect only with a separate commit.
    in_transaction: bool,
    keyed: bool,
}

impl Case {
    async fn effect(&self, client: &Client) -> i64 {
        client.query_one(&self.effect, &[]).await.expect("counted").get(0)
    }

    fn send(&self) -> impl Future<Output = Answer> + use<> {
        send(self.request.try_clone().expect("its body is bytes"))
    }
}

/// One of each kind of change that the API offers, on rows that no other test changes. Each body contains `mark`.
async fn cases(app: &TestApp, client: &Client, mark: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let named = passenger_with("name", mark);
    let stored = format!("select count(*) from passengers where name = '{mark}'");
    let mut add = |name: &'static str, request: RequestBuilder, effect: &str| {
        let in_transaction = name.contains("key") || name.contains("many");
        let keyed = name.contains("key");
        let request = if keyed { request.header("idempotency-key", format!("{mark} {name}")) } else { request };
        cases.push(Case { name, request, effect: effect.to_owned(), in_transaction, keyed });
    };
    let post = |path: &str| app.request(Method::POST, path);
    add("POST", post("/v1/passengers").json(&named), &stored);
    add("POST of the short URL", post("/postpassenger").json(&named), &stored);
    add("POST with a key", post("/v1/passengers").json(&named), &stored);
    add("POST of many", post("/v1/passengers").json(&json!([named])), &stored);
    add("POST of many with a key", post("/v1/passengers").json(&json!([named])), &stored);
    let representation = post("/v1/passengers").header("prefer", "return=representation");
    add("POST of many, to be told", representation.json(&json!([named])), &stored);
    let step = json!({"component": mark, "version": "1", "owner": "ann", "status": "done"});
    let steps = format!("select count(*) from steps where component = '{mark}'");
    add("POST of a step", post("/v1/steps").json(&step), &steps);
    add("POST of a step with a key", post("/v1/steps").json(&step), &steps);
    for (name, method) in [("PUT", Method::PUT), ("PATCH", Method::PATCH), ("DELETE", Method::DELETE)] {
        let uuid = Uuid::now_v7();
        let insert = "insert into passengers values ($1, true, 1, 'before', 'male', null, 0, 0, 1)";
        client.execute(insert, &[&uuid]).await.expect("inserted");
        let request = app.request(method.clone(), &format!("/v1/passengers/{uuid}"));
        let changed = format!("select count(*) from passengers where uuid = '{uuid}' and name = '{mark}'");
        match method {
            Method::PUT => add(name, request.json(&named), &changed),
            Method::PATCH => {
                let patch = request.header("content-type", "application/merge-patch+json");
                add(name, patch.body(json!({"name": mark}).to_string()), &changed);
            }
            _ => add(name, request, &format!("select 1 - count(*) from passengers where uuid = '{uuid}'")),
        }
    }
    cases
}

/// A connection for observing the database, which does not wait for a synchronous standby.
async fn observer(config: &tokio_postgres::Config) -> Client {
    let conninfo = ConnInfo::from_config(config.clone()).expect("no TLS required");
    let client = migrate::connect(&conninfo).await.expect("connected");
    client.batch_execute("set synchronous_commit = off").await.expect("set");
    client
}

#[track_caller]
fn assert_unknown(case: &Case, answer: &Answer) {
    let problem = answer.expect_problem(503, "outcome-unknown");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("GET") && detail.contains("Idempotency-Key"), "{}: {detail}", case.name);
    // HTTP clients treat Retry-After as permission to send the request again.
    assert_eq!(answer.headers.contains_key("retry-after"), case.keyed, "{}", case.name);
    assert_eq!(detail.contains("is safe"), case.keyed, "{}: {detail}", case.name);
}

#[track_caller]
fn assert_undone(case: &Case, answer: &Answer) {
    let problem = answer.expect_problem(503, "unavailable");
    assert!(problem["detail"].as_str().expect("a text").contains("send the request again"), "{}", case.name);
    assert_eq!(answer.header("retry-after"), "1", "{}", case.name);
}

/// Asserts how often a change was carried out whose connection was cut. PostgreSQL may still be executing it: the lost response
/// may have belonged to an earlier message, such as the closing of a statement.
async fn assert_carried_out(case: &Case, client: &Client, times: i64) {
    eventually(|| async {
        let done = case.effect(client).await;
        if done == times { Ok(()) } else { Err(format!("{}: carried out {done} times, not {times}", case.name)) }
    })
    .await;
}

/// Applies a PostgreSQL function to each backend with this wait event until `work` is done.
async fn while_signalling<T>(client: &Client, ask: &str, waits_for: &str, work: impl Future<Output = T>) -> T {
    let ask = format!(
        "select count({ask}(pid)) from pg_stat_activity \
         where datname = current_database() and (wait_event = '{waits_for}' or wait_event_type = '{waits_for}')"
    );
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            asked = client.query_one(&ask, &[]) => { asked.expect("queried"); }
        }
    }
}

/// Waits until a backend has this wait event, or until `over` is true.
async fn until_waiting(client: &Client, waits_for: &str, over: impl Fn() -> bool) {
    let sql = format!(
        "select count(*) from pg_stat_activity \
         where datname = current_database() and (wait_event = '{waits_for}' or wait_event_type = '{waits_for}')"
    );
    eventually(|| async {
        let waiting: i64 = client.query_one(&sql, &[]).await.expect("counted").get(0);
        if waiting > 0 || over() { Ok(()) } else { Err(format!("no backend waits for {waits_for}")) }
    })
    .await;
}

/// Changes wait while they are executed. (A lock on the table would already block the preparation of the statement.)
const WAITING: &str = "create function wait() returns trigger language plpgsql as \
     'begin perform pg_advisory_xact_lock(7); return null; end'; \
     create trigger wait after insert or update or delete on passengers for each row execute function wait(); \
     create trigger wait after insert on steps for each row execute function wait()";
const LOCK: &str = "select pg_advisory_lock(7)";
const UNLOCK: &str = "select pg_advisory_unlock(7)";

#[tokio::test]
async fn a_change_whose_backend_is_terminated_during_a_lock_wait_is_not_stored_and_not_retried() {
    let app = TestApp::start_with(&["--statement-timeout-ms=60000"]).await;
    let config = &app.database.as_ref().expect("own database").config;
    let (locker, client) = (observer(config).await, observer(config).await);
    locker.batch_execute(WAITING).await.expect("created");
    for case in cases(&app, &client, "locked").await {
        let before = case.effect(&client).await;
        locker.batch_execute(LOCK).await.expect("locked");
        let answer = while_signalling(&client, "pg_terminate_backend", "Lock", case.send()).await;
        // A change that needs a separate commit cannot have been committed.
        if case.in_transaction {
            assert_undone(&case, &answer);
        } else {
            assert_unknown(&case, &answer);
        }
        locker.batch_execute(UNLOCK).await.expect("unlocked");
        assert_eq!(case.effect(&client).await, before, "{}", case.name);
        let again = case.send().await;
        assert!(again.status.is_success(), "{}: {again:?}", case.name);
        assert_eq!(case.effect(&client).await, before + 1, "{}", case.name);
    }
}

#[tokio::test]
async fn a_statement_cancelled_by_postgres_is_reported_as_not_carried_out() {
    let app = TestApp::start_with(&["--statement-timeout-ms=60000"]).await;
    let config = &app.database.as_ref().expect("own database").config;
    let (locker, client) = (observer(config).await, observer(config).await);
    locker.batch_execute(WAITING).await.expect("created");
    for case in cases(&app, &client, "cancelled").await {
        locker.batch_execute(LOCK).await.expect("locked");
        assert_undone(&case, &while_signalling(&client, "pg_cancel_backend", "Lock", case.send()).await);
        locker.batch_execute(UNLOCK).await.expect("unlocked");
        assert_eq!(case.effect(&client).await, 0, "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_backend_is_terminated_is_not_split_and_retried() {
    let app = TestApp::start_with(&["--statement-timeout-ms=60000", "--checkout-timeout-ms=60000"]).await;
    let config = &app.database.as_ref().expect("own database").config;
    let (locker, client) = (observer(config).await, observer(config).await);
    locker.batch_execute(WAITING).await.expect("created");
    let urls = join_all((0..32).map(|_| async { format!("/v1/passengers/{}", app.create(&passenger()).await) })).await;
    for method in [Method::POST, Method::PUT] {
        let named = passenger_with("name", method.as_str());
        let requests = urls.iter().map(|url| match method {
            Method::POST => send(app.request(Method::POST, "/v1/passengers").json(&named)),
            _ => send(app.request(Method::PUT, url).json(&named)),
        });
        locker.batch_execute(LOCK).await.expect("locked");
        // Terminates one statement after another until one of them held several changes.
        let ending = async {
            let mut ended = HashSet::new();
            loop {
                let sql = "select query ~ 'unnest|width_bucket', pid, pg_terminate_backend(pid) from pg_stat_activity \
                           where datname = current_database() and wait_event_type = 'Lock' limit 1";
                let Some(row) = client.query_opt(sql, &[]).await.expect("queried") else { continue };
                ended.insert(row.get::<_, i32>(1)); // a terminating backend may be found again
                if row.get(0) {
                    break;
                }
            }
            locker.batch_execute(UNLOCK).await.expect("unlocked");
            ended.len()
        };
        let (answers, ended) = tokio::join!(join_all(requests), ending);
        let (unknown, done): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 503);
        for answer in &unknown {
            answer.expect_problem(503, "outcome-unknown");
        }
        assert!(done.iter().all(|answer| answer.status.is_success()), "{done:?}");
        assert!(unknown.len() > ended, "{ended} statements were ended, and {} changes failed", unknown.len());
        let rows = format!("select count(*) from passengers where name = '{method}'");
        let rows: i64 = client.query_one(&rows, &[]).await.expect("counted").get(0);
        assert_eq!(usize::try_from(rows), Ok(done.len()), "{method}");
    }
}

#[tokio::test]
async fn a_connection_cut_during_a_change_is_reported_as_unknown_and_before_the_commit_as_not_carried_out() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.config).await;
    let app = TestApp::start_on(&proxy.conninfo(&database.config), &["--pool-size=2"]).await;
    let client = observer(&database.config).await;
    for (moment, carried_out) in [(Moment::Before, 0), (Moment::After, 1)] {
        let mark = format!("cut {moment:?}");
        for case in cases(&app, &client, &mark).await {
            // A DELETE has no body; its statement is recognised by its text, which is sent once per connection.
            let at: &[u8] = if case.name == "DELETE" { b"delete from passengers" } else { mark.as_bytes() };
            let before = case.effect(&client).await;
            proxy.cut(at, moment, 1);
            let answer = case.send().await;
            proxy.assert_cut();
            if case.in_transaction || case.name == "DELETE" {
                assert_undone(&case, &answer);
                assert_eq!(case.effect(&client).await, before, "{}", case.name);
            } else {
                assert_unknown(&case, &answer);
                assert_carried_out(&case, &client, before + carried_out).await;
            }
            if case.in_transaction {
                proxy.cut(b"COMMIT\0", moment, 1);
                assert_unknown(&case, &case.send().await);
                proxy.assert_cut();
                assert_carried_out(&case, &client, before + carried_out).await;
                if case.keyed {
                    // Until PostgreSQL notices that the connection was cut, the key is in use.
                    eventually(|| async {
                        let answer = case.send().await;
                        if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
                    })
                    .await;
                    assert_eq!(case.effect(&client).await - before, 1, "{}", case.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_change_not_confirmed_by_a_standby_is_reported_as_unknown() {
    let (postgres, _folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let patient = TestApp::start_on(&conninfo, &["--statement-timeout-ms=60000"]).await;
    let hasty = TestApp::start_on(&conninfo, &["--statement-timeout-ms=300", "--bulk-timeout-ms=1000"]).await;
    patient.until_ready().await;
    hasty.until_ready().await;
    let client = observer(&postgres.config()).await;
    let ways = [("pg_terminate_backend", &patient), ("pg_cancel_backend", &patient), ("pg_backend_pid() + ", &hasty)];
    for (number, (ask, app)) in ways.into_iter().enumerate() {
        for case in cases(app, &client, &format!("standby {number}")).await {
            let before = case.effect(&client).await;
            wait_for_standby(&postgres.config(), "nobody").await;
            let answer = while_signalling(&client, ask, "SyncRep", case.send()).await;
            assert_unknown(&case, &answer);
            wait_for_standby(&postgres.config(), "").await;
            // A wait that was not cancelled ends when the setting is reset.
            eventually(|| async {
                let done = case.effect(&client).await - before;
                if done == 1 { Ok(()) } else { Err(format!("{}: carried out {done} times", case.name)) }
            })
            .await;
            if case.keyed {
                assert_eq!(case.send().await.expect(StatusCode::CREATED).header("idempotency-replayed"), "true");
                assert_eq!(case.effect(&client).await - before, 1, "{}", case.name);
            }
        }
    }
}

/// Makes commits wait for a standby of this name, or for none if it is empty.
async fn wait_for_standby(config: &tokio_postgres::Config, name: &str) {
    let client = observer(config).await;
    client.batch_execute(&format!("alter system set synchronous_standby_names = '{name}'")).await.expect("set");
    client.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    // Another PostgreSQL process applies the setting, without notification.
    eventually(|| async {
        let committing = observer(config).await;
        committing.batch_execute("set synchronous_commit = on").await.expect("set");
        let commit = tokio::spawn(async move {
            // It may be terminated like the other waiting backends.
            let _ = committing.batch_execute("select pg_logical_emit_message(true, 'commit', '')").await;
        });
        until_waiting(&client, "SyncRep", || commit.is_finished()).await;
        if commit.is_finished() == name.is_empty() { Ok(()) } else { Err("not in effect".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn a_killed_backend_and_a_stopped_one_leave_the_outcome_unknown_and_never_two_rows() {
    let (postgres, _folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let app = TestApp::start_on(&conninfo, &["--pool-size=1", "--statement-timeout-ms=1000"]).await;
    for (number, mark) in [("-KILL", "killed"), ("-STOP", "stopped")] {
        let client = observer(&postgres.config()).await;
        // Prepares the statement on the only connection, so that only the change itself waits.
        eventually(|| async {
            let answer = app.post("/v1/passengers", &passenger()).await;
            if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
        })
        .await;
        let locker = observer(&postgres.config()).await;
        locker.batch_execute(&WAITING.replace("create ", "create or replace ")).await.expect("created");
        locker.batch_execute(LOCK).await.expect("locked");
        let named = passenger_with("name", mark);
        let change = app.post("/v1/passengers", &named);
        let signalling = async {
            until_waiting(&client, "Lock", || false).await;
            let waits = "select pid from pg_stat_activity where wait_event_type = 'Lock'";
            let pid: i32 = client.query_one(waits, &[]).await.expect("one waits").get(0);
            signal(number, pid);
            pid
        };
        let (answer, pid) = tokio::join!(change, signalling);
        answer.expect_problem(503, "outcome-unknown");
        drop(locker);
        if mark == "stopped" {
            signal("-CONT", pid);
        }
        let sql = format!(
            "select count(*), (select count(*) from pg_stat_activity where pid = {pid} and state <> 'idle') \
             from passengers where name = '{mark}'"
        );
        // Killing one backend restarts all of PostgreSQL.
        let stored = AtomicI64::new(0);
        eventually(|| async {
            let client = migrate::connect(&conninfo).await.map_err(|error| error.to_string())?;
            let row = client.query_one(&sql, &[]).await.map_err(|error| error.to_string())?;
            stored.store(row.get(0), Ordering::Relaxed);
            if row.get::<_, i64>(1) == 0 { Ok(()) } else { Err("the backend is still active".to_owned()) }
        })
        .await;
        let stored = stored.into_inner();
        assert!(stored <= 1, "{mark}: {stored}");
    }
}

fn signal(number: &str, pid: i32) {
    let status = Command::new("kill").args([number, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "{number} {pid}");
}

#[tokio::test]
async fn a_failed_lookup_after_a_failed_condition_answers_503_and_not_404() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.config).await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        // The text of a statement is sent once per connection, so each method has its own server.
        let app = TestApp::start_on(&proxy.conninfo(&database.config), &[]).await;
        let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
        let request = || {
            let request = app.request(method.clone(), &url).header("if-match", "\"0\"");
            match method {
                Method::PATCH => request.header("content-type", "application/merge-patch+json").body("{\"age\":1}"),
                Method::PUT => request.json(&passenger()),
                _ => request,
            }
        };
        // The lookup is a read, which is retried once.
        proxy.cut(b"select uuid from passengers where uuid = any($1)", Moment::Before, 2);
        send(request()).await.expect_problem(503, "unavailable");
        proxy.assert_cut();
        send(request()).await.expect_problem(412, "precondition-failed");
    }
}

#[tokio::test]
async fn a_bulk_create_whose_rows_cannot_be_read_back_is_still_reported_as_created() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.config).await;
    let app = TestApp::start_on(&proxy.conninfo(&database.config), &[]).await;
    proxy.cut(
        b"parents_or_children_aboard, fare from passengers where uuid = any($1) order by uuid",
        Moment::Before,
        2,
    );
    let request = app.request(Method::POST, "/v1/passengers").header("prefer", "return=representation");
    let answer = send(request.json(&json!([passenger(), passenger()]))).await;
    proxy.assert_cut();
    assert_eq!(answer.expect(StatusCode::CREATED).json(), json!({"count": 2}));
    assert!(!answer.headers.contains_key("preference-applied"), "{answer:?}");
}
