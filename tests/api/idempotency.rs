//! Safe retries: a request with an `Idempotency-Key` is carried out once, whatever fails in between.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pycrudapi::db::pool::{Pool, PoolKind};
use pycrudapi::idempotency::{expiry, store};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::harness::{Answer, Database, PATIENCE, Settings, TestApp, eventually, passenger, passenger_with, send};
use crate::proxy::{Moment, Proxy};

/// Number of lost responses.
const LOSSES: usize = 200;

const STEP: &str = "/v1/steps?component=api&version=1&owner=ann&status=started";

impl TestApp {
    async fn post_once(&self, path: &str, key: &str, body: String) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        send(request.header("idempotency-key", key).body(body)).await
    }

    /// Number of passengers in the table.
    async fn count(&self) -> usize {
        self.get("/passengerlist").await.json().as_array().expect("an array").len()
    }
}

/// Asserts that the second response is a replay of the first.
#[track_caller]
fn assert_replayed(first: &Answer, again: &Answer) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["content-type", "location", "etag"] {
        assert_eq!(again.headers.get(name), first.headers.get(name), "{name}");
    }
    assert!(!first.headers.contains_key("idempotency-replayed"), "{first:?}");
    assert_eq!(again.header("idempotency-replayed"), "true");
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_from_every_replica_and_after_a_restart() {
    let database = Database::migrated().await;
    let mut first_server = TestApp::start_on(&database.conninfo(), &[]).await;
    let second_server = TestApp::start_on(&database.conninfo(), &[]).await;
    for (number, (path, body)) in [
        ("/v1/passengers", passenger().to_string()),
        ("/postpassenger", passenger().to_string()),
        (STEP, String::new()),
        ("/v1/steps", json!({"component": "api", "version": "1", "owner": "ann", "status": "done"}).to_string()),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("key {number}");
        let first = first_server.post_once(path, &key, body.clone()).await;
        first.expect(StatusCode::CREATED);
        assert_replayed(&first, &first_server.post_once(path, &key, body.clone()).await);
        if let Some(location) = first.headers.get("location") {
            // The first response is replayed even if the passenger has since been deleted.
            first_server.delete(location.to_str().expect("ASCII")).await.expect(StatusCode::NO_CONTENT);
        }
        assert_replayed(&first, &second_server.post_once(path, &key, body.clone()).await);
        first_server.stop().await;
        first_server = TestApp::start_on(&database.conninfo(), &[]).await;
        assert_replayed(&first, &first_server.post_once(path, &key, body).await);
    }
    let steps = second_server.get("/v1/steps?format=json").await.json();
    assert_eq!(steps["steps"].as_array().map(Vec::len), Some(2));
    assert_eq!(second_server.count().await, 0);
}

#[tokio::test]
async fn another_request_with_the_same_key_answers_422_and_another_key_is_independent() {
    let app = TestApp::start().await;
    let body = passenger().to_string();
    app.post_once("/v1/passengers", "k", body.clone()).await.expect(StatusCode::CREATED);
    for (path, other) in [
        ("/v1/passengers", passenger_with("age", 1).to_string()),
        ("/v1/passengers", format!("{body} ")),
        ("/postpassenger", body.clone()),
        (STEP, String::new()),
    ] {
        app.post_once(path, "k", other).await.expect_problem(422, "idempotency-key-reused");
    }
    let charset = app.request(Method::POST, "/v1/passengers").header("content-type", "application/json; charset=utf-8");
    let other_type = send(charset.header("idempotency-key", "k").body(body.clone())).await;
    other_type.expect_problem(422, "idempotency-key-reused");
    assert_eq!(app.count().await, 1);
    app.post_once("/v1/passengers", "K", body).await.expect(StatusCode::CREATED);
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn while_the_first_attempt_is_in_progress_a_retry_answers_409() {
    let app = TestApp::start_with(&["--statement-timeout-ms=60000"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in exclusive mode").await.expect("locked");
    let body = || passenger().to_string();
    let first = app.post_once("/v1/passengers", "k", body()); // waits for the table
    tokio::pin!(first);
    let refused = async {
        // Until the first request holds the key, a retry would itself be the first attempt and wait for the table.
        let holds = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted";
        eventually(|| async {
            let count: i64 = client.query_one(holds, &[]).await.expect("counted").get(0);
            if count > 0 { Ok(()) } else { Err("no transaction holds the key".to_owned()) }
        })
        .await;
        let refused = app.post_once("/v1/passengers", "k", body()).await;
        refused.expect_problem(409, "idempotency-in-flight");
        assert_eq!(refused.header("retry-after"), "1");
        app.post_once("/v1/passengers", "k", passenger_with("age", 1).to_string())
            .await
            .expect_problem(409, "idempotency-in-flight");
        client.batch_execute("rollback").await.expect("unlocked");
    };
    let (first, ()) = tokio::join!(first, refused);
    first.expect(StatusCode::CREATED);
    assert_replayed(&first, &app.post_once("/v1/passengers", "k", body()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_concurrent_attempts_one_is_carried_out() {
    let app = TestApp::start().await;
    for round in 1..=10 {
        let key = format!("round {round}");
        let answers = join_all((0..32).map(|_| app.post_once("/v1/passengers", &key, passenger().to_string()))).await;
        let first: Vec<&Answer> = answers
            .iter()
            .filter(|answer| answer.status == 201 && !answer.headers.contains_key("idempotency-replayed"))
            .collect();
        assert_eq!(first.len(), 1);
        for answer in &answers {
            match answer.status {
                StatusCode::CREATED => assert_eq!(answer.body, first[0].body, "another's answer"),
                StatusCode::CONFLICT => {
                    answer.expect_problem(409, "idempotency-in-flight");
                }
                other => panic!("{other}: {}", answer.body),
            }
        }
        assert_eq!(app.count().await, round);
    }
}

#[tokio::test]
async fn refusals_are_not_stored_so_a_corrected_request_may_use_the_same_key() {
    let app = TestApp::start().await;
    let client = app.database.as_ref().expect("own database").client().await;
    // A constraint of this database alone: the table refuses rows that pass the server's validation.
    let rule = "alter table passengers drop constraint passengers_name; \
                alter table passengers add constraint passengers_name check (name <> 'refused')";
    client.batch_execute(rule).await.expect("altered");
    app.post_once("/v1/passengers", "k", "{".to_owned()).await.expect_problem(400, "invalid-json");
    assert_eq!(app.post_once("/v1/passengers", "k", passenger_with("age", -1).to_string()).await.pointers(), ["/age"]);
    let refused = passenger_with("name", "refused").to_string();
    assert_eq!(app.post_once("/v1/passengers", "k", refused).await.pointers(), ["/name"]);
    assert_eq!(app.count().await, 0);
    let corrected = app.post_once("/v1/passengers", "k", passenger().to_string()).await;
    corrected.expect(StatusCode::CREATED);
    assert_replayed(&corrected, &app.post_once("/v1/passengers", "k", passenger().to_string()).await);
}

#[tokio::test]
async fn an_invalid_key_answers_400() {
    let app = TestApp::start().await;
    for path in ["/v1/passengers", "/postpassenger", STEP] {
        for key in ["", &"x".repeat(256), "café"] {
            let body = if path == STEP { String::new() } else { passenger().to_string() };
            app.post_once(path, key, body).await.expect_problem(400, "invalid-header");
        }
    }
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn a_key_is_removed_after_its_lifetime() {
    let app = TestApp::start_with(&["--idempotency-ttl=1s"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    app.post_once("/v1/passengers", "k", passenger().to_string()).await.expect(StatusCode::CREATED);
    // More than one batch of expired keys that were never removed.
    let old = "insert into idempotency_keys (key, fingerprint, created_at, status, content_type, body) \
               select 'old ' || n, decode(repeat('00', 16), 'hex'), now() - interval '1 hour', 201, 'text/plain', '' \
               from generate_series(1, 2500) n";
    client.execute(old, &[]).await.expect("inserted");
    // Expired but not yet removed: it has no effect.
    app.post_once("/v1/passengers", "old 1", passenger().to_string()).await.expect(StatusCode::CREATED);
    eventually(|| async {
        let left: i64 = client.query_one("select count(*) from idempotency_keys", &[]).await.expect("counted").get(0);
        if left == 0 { Ok(()) } else { Err(format!("{left} keys are left")) }
    })
    .await;
    let again = app.post_once("/v1/passengers", "k", passenger_with("age", 1).to_string()).await;
    assert!(!again.expect(StatusCode::CREATED).headers.contains_key("idempotency-replayed"));
    assert_eq!(app.count().await, 3);
}

/// Stores keys of this age with the response to a request that is never sent.
async fn store_keys(client: &Client, keys: &[(&str, i32)]) {
    let kept = "insert into idempotency_keys (key, fingerprint, created_at, status, content_type, body) \
                values ($1, decode(repeat('00', 16), 'hex'), now() - make_interval(secs => $2::int), 201, 'text/plain', '')";
    for (key, age) in keys {
        client.execute(kept, &[key, age]).await.expect("inserted");
    }
}

#[tokio::test]
async fn a_key_is_valid_for_exactly_its_lifetime() {
    let app = TestApp::start_with(&["--idempotency-ttl=1h"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    // A minute of tolerance on either side of the lifetime, for slow machines.
    store_keys(&client, &[("new", 0), ("young", 3540), ("old", 3660)]).await;
    for key in ["new", "young"] {
        let answer = app.post_once("/v1/passengers", key, passenger().to_string()).await;
        answer.expect_problem(422, "idempotency-key-reused");
    }
    let first = app.post_once("/v1/passengers", "old", passenger().to_string()).await;
    first.expect(StatusCode::CREATED);
    // The lifetime starts again with the new request.
    assert_replayed(&first, &app.post_once("/v1/passengers", "old", passenger().to_string()).await);
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn only_expired_keys_are_removed_oldest_first() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let pool = Pool::new(&database.conninfo(), &Settings::parse(&[]).database.pool_options(PoolKind::Keys));
    store_keys(&client, &[("new", 0), ("young", 3540), ("old", 3660), ("older", 7200), ("oldest", 86_400)]).await;
    for (forgotten, left) in [(2, "new old young"), (1, "new young"), (0, "new young")] {
        let hour = Duration::from_secs(3600);
        assert_eq!(store::delete_expired(&pool, hour, 2).await.expect("forgotten"), forgotten);
        let keys = client.query_one("select string_agg(key, ' ' order by key) from idempotency_keys", &[]).await;
        assert_eq!(keys.expect("a row").get::<_, &str>(0), left);
    }
}

/// More statements would keep PostgreSQL busy, and fewer would leave keys whose time has passed.
#[tokio::test]
async fn forgetting_takes_as_many_statements_as_there_are_full_batches_and_one_more() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let pool = Pool::new(&database.conninfo(), &Settings::parse(&[]).database.pool_options(PoolKind::Keys));
    for (keys, statements) in [(0, 1), (1, 1), (9, 1), (10, 2), (11, 2), (35, 4)] {
        let old = "insert into idempotency_keys (key, fingerprint, created_at, status, content_type, body) \
                   select 'old ' || n, decode(repeat('00', 16), 'hex'), now() - interval '2 hours', 201, 'text/plain', '' \
                   from generate_series(1, $1::int) n";
        client.execute(old, &[&keys]).await.expect("inserted");
        let forgetting = expiry::delete_all_expired(&pool, Duration::from_secs(3600), 10);
        let taken = tokio::time::timeout(PATIENCE, forgetting).await.expect("it ends").expect("forgotten");
        assert_eq!(taken, statements, "{keys} keys");
        let left: i64 = client.query_one("select count(*) from idempotency_keys", &[]).await.expect("counted").get(0);
        assert_eq!(left, 0, "{keys} keys");
    }
}

#[tokio::test]
async fn a_key_reused_during_its_removal_is_kept() {
    let database = Database::migrated().await;
    let client = database.client().await;
    store_keys(&client, &[("k", 3660)]).await;
    client.batch_execute("begin; update idempotency_keys set created_at = now()").await.expect("updated");
    let pool = Pool::new(&database.conninfo(), &Settings::parse(&[]).database.pool_options(PoolKind::Keys));
    let forgetting = tokio::spawn(async move { store::delete_expired(&pool, Duration::from_secs(60), 10).await });
    let watcher = database.client().await;
    eventually(|| async {
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = watcher.query_one(waits, &[]).await.expect("counted").get(0);
        if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait for the row")) }
    })
    .await;
    client.batch_execute("commit").await.expect("committed");
    assert_eq!(forgetting.await.expect("no panic").expect("done"), 0);
    let left: i64 = client.query_one("select count(*) from idempotency_keys", &[]).await.expect("counted").get(0);
    assert_eq!(left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_lost_on_the_way_to_the_client_causes_no_duplicate() {
    let database = Database::migrated().await;
    let conninfo = database.conninfo();
    let servers = Arc::new([TestApp::start_on(&conninfo, &[]).await, TestApp::start_on(&conninfo, &[]).await]);
    let clients = (0..4).map(|client| {
        let servers = servers.clone();
        tokio::spawn(async move {
            for attempt in 0..LOSSES / 4 {
                let key = format!("client {client} request {attempt}");
                let body = passenger_with("name", key.as_str()).to_string();
                let mut connection = TcpStream::connect(servers[attempt % 2].addr).await.expect("connected");
                let head = format!(
                    "POST /v1/passengers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\nidempotency-key: {key}\r\n\r\n",
                    body.len()
                );
                connection.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
                if attempt % 4 != 0 {
                    // The response has arrived, so the passenger is stored, but the response is never read. In the other
                    // attempts the connection breaks earlier.
                    connection.readable().await.expect("answered");
                }
                drop(connection);
                let location = until_answered(&servers[(attempt + 1) % 2], &key, &body).await;
                servers[0].get(&location).await.expect(StatusCode::OK);
            }
        })
    });
    for client in join_all(clients).await {
        client.expect("no panic");
    }
    assert_eq!(servers[0].count().await, LOSSES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_between_commit_and_response_causes_no_duplicate() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.config).await;
    let app = TestApp::start_on(&proxy.conninfo(&database.config), &["--pool-size=2"]).await;
    for attempt in 0..LOSSES {
        let key = format!("request {attempt}");
        let body = passenger_with("name", key.as_str()).to_string();
        proxy.cut(b"COMMIT\0", Moment::After, 1);
        let lost = app.post_once("/v1/passengers", &key, body.clone()).await;
        let detail = lost.expect_problem(503, "outcome-unknown")["detail"].to_string();
        assert!(detail.contains("again with the same Idempotency-Key, which is safe"), "{detail}");
        assert_eq!(lost.header("retry-after"), "1");
        proxy.assert_cut();
        until_answered(&app, &key, &body).await;
        let again = app.post_once("/v1/passengers", &key, body).await;
        assert_eq!(again.expect(StatusCode::CREATED).header("idempotency-replayed"), "true");
    }
    assert_eq!(app.count().await, LOSSES);
}

/// Sends a request until it succeeds, and returns the passenger's URL.
async fn until_answered(app: &TestApp, key: &str, body: &str) -> String {
    let location = std::sync::Mutex::new(String::new());
    eventually(|| async {
        let answer = app.post_once("/v1/passengers", key, body.to_owned()).await;
        match answer.status {
            StatusCode::CREATED => {
                assert_eq!(answer.json()["name"], key, "another's answer");
                *location.lock().expect("no panic") = answer.header("location").to_owned();
                Ok(())
            }
            StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => Err(answer.body),
            other => panic!("{other}: {}", answer.body),
        }
    })
    .await;
    location.into_inner().expect("no panic")
}
