//! What probes and clients are told while PostgreSQL is away, refuses, or is not migrated.

use std::path::Path;
use std::time::{Duration, Instant};

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use pycrudapi::db::migrate;
use reqwest::{Method, StatusCode};

use crate::failures::own_postgres;
use crate::harness::{Database, TestApp, eventually, passenger, send, with_roles};

/// What Kubernetes asks.
const PROBE: &str = "/readyz?exclude=postgres";

fn start_again(folder: &Path) -> Embedded {
    let options = Options { data_dir: folder.to_owned(), search_path: std::env::var_os("PATH"), ..Options::default() };
    Embedded::start(&options).expect("it starts again")
}

/// Everything that is answered without the database is; everything else says when to come back.
async fn expect_service_without_postgres(app: &TestApp) {
    let probe = app.get(PROBE).await;
    assert_eq!(probe.expect(StatusCode::OK).json()["checks"]["postgres"], "excluded");
    // What it said while all was well may be a second old.
    eventually(|| async {
        let answer = app.get("/readyz").await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE { Ok(()) } else { Err(answer.body) }
    })
    .await;
    assert_eq!(app.get("/readyz").await.expect_problem(503, "unavailable")["checks"]["postgres"], "unavailable");
    for path in ["/hello", "/zero", "/helloworld", "/livez", "/", "/docs", "/openapi.json", "/docs/problems"] {
        app.get(path).await.expect(StatusCode::OK);
    }
    let one = "/v1/passengers/0190a4e2-0000-7000-8000-000000000000";
    let step = "/v1/steps?component=api&version=1&owner=ann&status=started";
    for (method, path, body) in [
        (Method::GET, "/passengerlist", None),
        (Method::GET, "/v1/passengers?limit=1", None),
        (Method::GET, "/v1/passengers/stats", None),
        (Method::GET, one, None),
        (Method::PUT, one, Some(passenger())),
        (Method::DELETE, one, None),
        (Method::POST, "/v1/passengers", Some(passenger())),
        (Method::GET, "/v1/steps", None),
        (Method::GET, "/v1/steps/durations", None),
        (Method::POST, step, None),
        (Method::GET, "/v1/air-quality", None),
    ] {
        let mut request = app.request(method.clone(), path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = send(request).await;
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1", "{method} {path}");
    }
}

async fn expect_ready(app: &TestApp) {
    for path in ["/readyz", PROBE, "/passengerlist"] {
        eventually(|| async {
            let answer = app.get(path).await;
            if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_keeps_every_replica_while_postgres_is_away() {
    let (postgres, folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS is asked for");
    let app = TestApp::start_on(&conninfo, &[]).await;
    expect_ready(&app).await;
    postgres.stop();
    expect_service_without_postgres(&app).await;
    // A replica that starts meanwhile, by chance or because its node was lost, answers as the others do.
    let fresh = TestApp::start_on(&conninfo, &[]).await;
    expect_service_without_postgres(&fresh).await;
    drop(postgres);
    let _postgres = start_again(folder.path());
    expect_ready(&app).await;
    expect_ready(&fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_again_soon_after_postgres_is_back_however_long_it_was_away() {
    let (postgres, folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS is asked for");
    // Pauses between attempts to connect that double, up to half of this deadline, would be at their sixth in the end: of 13 s.
    let flags = ["--checkout-timeout-ms=60000", "--pool-size=1"];
    let app = TestApp::start_on(&conninfo, &flags).await;
    let fresh = {
        postgres.stop();
        TestApp::start_on(&conninfo, &flags).await
    };
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(13) {
        app.get("/v1/passengers?limit=1").await.expect_problem(503, "unavailable");
        fresh.get("/v1/passengers?limit=1").await.expect_problem(503, "unavailable");
    }
    drop(postgres);
    let _postgres = start_again(folder.path());
    let back = Instant::now();
    expect_ready(&app).await;
    expect_ready(&fresh).await;
    // Two seconds are what is promised; a machine under load is given five times as long.
    assert!(back.elapsed() < Duration::from_secs(10), "served after {:?}", back.elapsed());
}

#[tokio::test]
async fn a_replica_whose_database_is_not_migrated_is_not_given_requests() {
    let database = Database::empty().await;
    let app = TestApp::start_on(&database.conninfo(), &["--migrate=false"]).await;
    let answer = app.get(PROBE).await;
    assert_eq!(answer.expect_problem(503, "unavailable")["checks"]["migrations"], "pending");
    migrate::prepare(&with_roles(&database.conninfo()), &crate::harness::resources(), || ()).await.expect("migrated");
    expect_ready(&app).await;
}

/// Migrations are there before the role of requests may read that they are: a replica that starts in between waits.
#[tokio::test]
async fn a_replica_waits_for_what_is_granted_last() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute("revoke all on refinery_schema_history from pycrudapi").await.expect("revoked");
    let app = TestApp::start_on(&database.conninfo(), &["--migrate=false"]).await;
    app.get(PROBE).await.expect_problem(503, "unavailable");
    client.batch_execute("grant select on refinery_schema_history to pycrudapi").await.expect("granted");
    expect_ready(&app).await;
}

#[tokio::test]
async fn readiness_takes_the_one_exclusion_that_there_is() {
    let app = TestApp::start().await;
    for query in ["exclude=migrations", "exclude=", "exclude=postgres&exclude=postgres", "ignore=postgres"] {
        app.get(&format!("/readyz?{query}")).await.expect_problem(400, "invalid-query");
    }
}
