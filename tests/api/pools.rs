//! Keyed statements, lists and the readiness probe do not wait for each other's connections.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use tokio_postgres::Client;

use crate::harness::{Answer, TestApp, eventually, passenger, send};

/// Longer than any lock wait in these tests.
const LONG: &[&str] = &["--statement-timeout-ms=600000", "--checkout-timeout-ms=60000"];

/// Locks `passengers` in access exclusive mode until `rollback`.
async fn lock_passengers(app: &TestApp) -> Client {
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in access exclusive mode").await.expect("locked");
    client
}

/// Number of statements of the server in progress, including waiting ones.
pub async fn active(client: &Client) -> i64 {
    let count = "select count(*) from pg_stat_activity where datname = current_database() \
                 and application_name = 'pycrudapi' and state = 'active' \
                 and query <> 'select generation from air_quality_generation' and pid <> pg_backend_pid()";
    client.query_one(count, &[]).await.expect("a row").get(0)
}

/// Waits until exactly this many of the server's statements are in progress.
pub async fn until_active(client: &Client, wanted: i64) {
    eventually(|| async {
        match active(client).await {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} statements are in progress, not {wanted}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_lists_leave_connections_for_steps_and_readiness() {
    let app = TestApp::start_with(LONG).await;
    let step = serde_json::json!({"component": "api", "version": "1", "owner": "me", "status": "started"});
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_passengers(&app).await;
    let paths = [
        "/passengerlist?fare=gt.1",
        "/v1/passengers?order=name",
        "/v1/passengers/stats?by=sex",
        "/v1/passengers?age=gt.3",
        "/v1/passengers?name=ilike.*a*",
    ];
    let lists = join_all((0..50).map(|n| {
        let path = format!("{}{}fare=neq.{n}", paths[n % 5], if paths[n % 5].contains('?') { "&" } else { "?" });
        app.get(&path)
    }));
    let others = async {
        until_active(&watcher, 2).await;
        for _ in 0..20 {
            app.post("/v1/steps", &step).await.expect(StatusCode::CREATED);
            app.get("/readyz").await.expect(StatusCode::OK);
        }
        locker.batch_execute("rollback").await.expect("unlocked");
    };
    let (lists, ()) = tokio::join!(lists, others);
    let answered = lists.iter().filter(|answer: &&Answer| answer.status == StatusCode::OK).count();
    assert!(answered > 0, "{lists:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_keyed_statements_leave_connections_for_lists_and_readiness() {
    let app = TestApp::start_with(&[LONG, &["--pool-size=3", "--list-pool-size=1"]].concat()).await;
    let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_passengers(&app).await;
    let body = passenger();
    let keyed = join_all((0..20).map(|n| {
        let (app, url, body) = (&app, &url, &body);
        async move { if n % 2 == 0 { app.get(url).await } else { app.put(url, body).await } }
    }));
    let others = async {
        until_active(&watcher, 2).await;
        for _ in 0..20 {
            app.get("/v1/steps").await.expect(StatusCode::OK);
            app.get("/readyz").await.expect(StatusCode::OK);
        }
        locker.batch_execute("rollback").await.expect("unlocked");
    };
    let (keyed, ()) = tokio::join!(keyed, others);
    for answer in keyed {
        answer.expect(StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_many_queued_lists_does_not_delay_another() {
    // One list at a time; each one waits for the lock until its statement times out.
    let app =
        TestApp::start_with(&["--list-pool-size=1", "--statement-timeout-ms=300", "--checkout-timeout-ms=60000"]).await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_passengers(&app).await;
    let greedy: Vec<_> = (0..20)
        .map(|n| {
            let path = format!("/v1/passengers?fare=neq.{n}");
            tokio::spawn(send(app.request(Method::GET, &path).header("x-forwarded-for", "192.0.2.1")))
        })
        .collect();
    until_active(&watcher, 1).await;
    let another = app.request(Method::GET, "/v1/steps").header("x-forwarded-for", "192.0.2.2");
    send(another).await.expect(StatusCode::OK);
    let answered = greedy.iter().filter(|list| list.is_finished()).count();
    assert!(answered <= 3, "{answered} of the other client's lists were served first");
    locker.batch_execute("rollback").await.expect("unlocked");
    join_all(greedy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_waits_too_long_in_the_queue_is_answered_with_retry_after() {
    let app =
        TestApp::start_with(&["--list-pool-size=1", "--statement-timeout-ms=600000", "--checkout-timeout-ms=200"])
            .await;
    let watcher = app.database.as_ref().expect("own database").client().await;
    let locker = lock_passengers(&app).await;
    let first = tokio::spawn(app.get("/v1/passengers?fare=neq.1"));
    until_active(&watcher, 1).await;
    let second = app.get("/v1/passengers?fare=neq.2").await;
    second.expect_problem(503, "unavailable");
    assert_eq!(second.header("retry-after"), "1");
    locker.batch_execute("rollback").await.expect("unlocked");
    first.await.expect("no panic").expect(StatusCode::OK);
}
