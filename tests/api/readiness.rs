//! Responses to probes and clients while PostgreSQL is unreachable, refuses connections, or is not migrated.

use std::path::Path;
use std::time::{Duration, Instant};

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use pycrudapi::db::migrate;
use reqwest::{Method, StatusCode};

use crate::failures::own_postgres;
use crate::harness::{Database, TestApp, eventually, passenger, send, with_roles};

/// The URL of the Kubernetes readiness probe.
const PROBE: &str = "/readyz?exclude=postgres";

fn restart(folder: &Path) -> Embedded {
    let options = Options { data_dir: folder.to_owned(), search_path: std::env::var_os("PATH"), ..Options::default() };
    Embedded::start(&options).expect("it starts again")
}

/// Requests that need no database succeed; all others are answered with Retry-After.
async fn expect_service_without_postgres(app: &TestApp) {
    let probe = app.get(PROBE).await;
    assert_eq!(probe.expect(StatusCode::OK).json()["checks"]["postgres"], "excluded");
    // Its result from before the outage may be reused for up to a second.
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
async fn the_load_balancer_probe_succeeds_while_postgres_is_unreachable() {
    let (postgres, folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let app = TestApp::start_on(&conninfo, &[]).await;
    expect_ready(&app).await;
    postgres.stop();
    expect_service_without_postgres(&app).await;
    // A replica that starts during the outage answers as the others do.
    let fresh = TestApp::start_on(&conninfo, &[]).await;
    expect_service_without_postgres(&fresh).await;
    drop(postgres);
    let _postgres = restart(folder.path());
    expect_ready(&app).await;
    expect_ready(&fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_resumes_soon_after_postgres_returns_even_after_a_long_outage() {
    let (postgres, folder) = own_postgres(Vec::new());
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    // With an exponential backoff up to half of this deadline, connection attempts would be paused for seconds after 13 s of
    // outage.
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
    let _postgres = restart(folder.path());
    let back = Instant::now();
    expect_ready(&app).await;
    expect_ready(&fresh).await;
    // The documented limit is two seconds; a loaded machine is allowed five times as long.
    assert!(back.elapsed() < Duration::from_secs(10), "served after {:?}", back.elapsed());
}

#[tokio::test]
async fn a_replica_with_an_unmigrated_database_is_not_ready() {
    let database = Database::empty().await;
    let app = TestApp::start_on(&database.conninfo(), &["--migrate=false"]).await;
    let answer = app.get(PROBE).await;
    assert_eq!(answer.expect_problem(503, "unavailable")["checks"]["migrations"], "pending");
    migrate::prepare(&with_roles(&database.conninfo()), &crate::harness::resources(), || ()).await.expect("migrated");
    expect_ready(&app).await;
}

/// Migrations are applied before the role for requests may read their history: a replica that starts in between waits.
#[tokio::test]
async fn a_replica_is_not_ready_before_the_last_grant() {
    let database = Database::migrated().await;
    let client = database.client().await;
    client.batch_execute("revoke all on refinery_schema_history from pycrudapi").await.expect("revoked");
    let app = TestApp::start_on(&database.conninfo(), &["--migrate=false"]).await;
    app.get(PROBE).await.expect_problem(503, "unavailable");
    client.batch_execute("grant select on refinery_schema_history to pycrudapi").await.expect("granted");
    expect_ready(&app).await;
}

#[tokio::test]
async fn readiness_accepts_only_the_exclusion_postgres() {
    let app = TestApp::start().await;
    for query in ["exclude=migrations", "exclude=", "exclude=postgres&exclude=postgres", "ignore=postgres"] {
        app.get(&format!("/readyz?{query}")).await.expect_problem(400, "invalid-query");
    }
}
