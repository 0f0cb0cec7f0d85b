//! Responses while the database is unreachable, busy, or killed under load.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pycrudapi::db::conninfo::ConnInfo;
use pycrudapi::db::embedded::{Embedded, Options};
use pycrudapi::db::pool::{Pool, PoolKind, PoolOptions};
use reqwest::{Method, StatusCode};

use crate::harness::{ASKED, Database, TestApp, eventually, passenger, send};

/// A PostgreSQL owned by the test, to be killed or configured differently.
pub fn own_postgres(extra_settings: Vec<(String, String)>) -> (Embedded, tempfile::TempDir) {
    let folder = tempfile::tempdir_in("/tmp").expect("a temporary directory");
    let options = Options {
        data_dir: PathBuf::from(folder.path()),
        search_path: std::env::var_os("PATH"),
        extra_settings,
        ..Options::default()
    };
    // The account that PostgreSQL runs under must be able to enter the directory.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permitted");
    (Embedded::start(&options).expect("postgresql is installed"), folder)
}

fn conninfo(postgres: &Embedded) -> ConnInfo {
    ConnInfo::from_config(postgres.config()).expect("no TLS required")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_unreachable_requests_get_503_immediately_and_service_resumes_automatically() {
    let (postgres, folder) = own_postgres(Vec::new());
    // Far longer than anything else here: an answer that waits for this deadline is noticed on any machine.
    const CHECKOUT: Duration = Duration::from_secs(60);
    let app = TestApp::start_on(&conninfo(&postgres), &["--checkout-timeout-ms=60000"]).await;
    app.until_ready().await;
    let uuid = app.create(&passenger()).await;
    postgres.stop();
    let waits = futures_util::future::join_all((0..50).map(|_| async {
        let started = Instant::now();
        let answer = app.get(&format!("/v1/passengers/{uuid}")).await;
        answer.expect_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        started.elapsed()
    }))
    .await;
    let longest = waits.into_iter().max().expect("there were requests");
    assert!(longest < CHECKOUT / 4, "waited for the checkout deadline: {longest:?}");
    app.post("/v1/passengers", &passenger()).await.expect_problem(503, "unavailable");
    app.get("/livez").await.expect(StatusCode::OK);
    // A result from just before PostgreSQL stopped is reused for up to a second.
    eventually(|| async {
        let answer = app.get("/readyz").await;
        if answer.status == StatusCode::OK {
            return Err(answer.body);
        }
        assert_eq!(answer.expect_problem(503, "unavailable")["checks"]["postgres"], "unavailable");
        Ok(())
    })
    .await;

    let options =
        Options { data_dir: folder.path().to_owned(), search_path: std::env::var_os("PATH"), ..Options::default() };
    drop(postgres);
    let _postgres = Embedded::start(&options).expect("it starts again");
    eventually(|| async {
        let answer = app.get(&format!("/v1/passengers/{uuid}")).await;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_postgres_is_killed_under_load_every_acknowledged_write_is_stored() {
    let (postgres, _folder) = own_postgres(Vec::new());
    let app = Arc::new(TestApp::start_on(&conninfo(&postgres), &["--pool-size=4"]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let created = Arc::new(AtomicU32::new(0));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (app, stop, created) = (app.clone(), stop.clone(), created.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = app.post("/v1/passengers", &passenger()).await;
                    match answer.status {
                        StatusCode::CREATED => {
                            acknowledged.push(answer.header("location").to_owned());
                            created.fetch_add(1, Ordering::Relaxed);
                        }
                        StatusCode::SERVICE_UNAVAILABLE => {}
                        other => panic!("{other}: {}", answer.body),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let more_than = |count: u32| {
        let created = created.clone();
        move || {
            let now = created.load(Ordering::Relaxed);
            async move { if now > count { Ok(()) } else { Err(format!("{now} created")) } }
        }
    };
    eventually(more_than(50)).await;
    let pid = postgres.pid().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    let before = created.load(Ordering::Relaxed);
    eventually(more_than(before + 50)).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        for location in writer.await.expect("no panic") {
            app.get(&location).await.expect(StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn an_exhausted_pool_answers_503_at_the_checkout_deadline() {
    let app =
        TestApp::start_with(&["--pool-size=1", "--checkout-timeout-ms=100", "--statement-timeout-ms=60000"]).await;
    let uuid = app.create(&passenger()).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in access exclusive mode").await.expect("locked");
    let url = format!("/v1/passengers/{uuid}");
    let stuck = app.get(&url); // takes the only connection and waits for the lock
    tokio::pin!(stuck);
    let refused = async {
        eventually(|| async {
            let answer = app.get(&url).await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE { Ok(()) } else { Err(answer.body) }
        })
        .await;
        client.batch_execute("rollback").await.expect("unlocked");
    };
    let (answer, ()) = tokio::join!(stuck, refused);
    answer.expect(StatusCode::OK);
    app.get(&url).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_statement_timeout_answers_503_and_frees_its_connection() {
    let app = TestApp::start_with(&["--pool-size=1", "--statement-timeout-ms=100"]).await;
    let uuid = app.create(&passenger()).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("begin; lock table passengers in access exclusive mode").await.expect("locked");
    app.get(&format!("/v1/passengers/{uuid}")).await.expect_problem(503, "unavailable");
    client.batch_execute("rollback").await.expect("unlocked");
    app.get(&format!("/v1/passengers/{uuid}")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn waiting_callers_are_served_before_a_caller_that_returns_its_connection_and_needs_another() {
    const SECONDS: Duration = Duration::from_secs(60);
    let database = Database::empty().await;
    let options = PoolOptions { kind: PoolKind::Keys, size: 1, checkout_timeout: SECONDS, statement_timeout: SECONDS };
    let pool = Pool::new(&database.conninfo(), &options);
    let turns = Arc::new(AtomicU32::new(0));
    let greedy = {
        let (pool, turns) = (pool.clone(), turns.clone());
        tokio::spawn(async move {
            for _ in 0..100 {
                pool.read(&ASKED, "select 1", &[]).await.expect("a row");
                turns.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    while turns.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    pool.read(&ASKED, "select 1", &[]).await.expect("a row");
    let turn = turns.load(Ordering::Relaxed);
    greedy.await.expect("no panic");
    assert!(turn <= 3, "waited for {turn} turns");
}

#[tokio::test]
async fn a_list_that_fails_midway_is_visibly_truncated() {
    let app = TestApp::start_with(&["--statement-timeout-ms=2000"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client
        .batch_execute(
            "insert into passengers select gen_random_uuid(), true, 1, repeat('n', 150), 'male', null, 0, 0, 1 \
             from generate_series(1, 20000)",
        )
        .await
        .expect("inserted");
    let mut response = app.request(Method::GET, "/passengerlist").send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.chunk().await.expect("a first piece");
    client.batch_execute("begin; lock table passengers in access exclusive mode").await.expect("locked");
    let outcome = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert!(outcome.is_err(), "the body ended as if it were complete");
    client.batch_execute("rollback").await.expect("unlocked");
}

#[tokio::test]
async fn a_slow_reader_holds_no_connection() {
    let app = TestApp::start_with(&["--pool-size=1", "--checkout-timeout-ms=200"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    client
        .batch_execute(
            "insert into passengers select gen_random_uuid(), true, 1, repeat('n', 150), 'male', null, 0, 0, 1 \
             from generate_series(1, 50000)",
        )
        .await
        .expect("inserted");
    let mut slow = app.request(Method::GET, "/passengerlist").send().await.expect("an answer");
    slow.chunk().await.expect("a first piece");
    // Once the buffers between client and server are full, the list waits for its reader, and the only connection is free.
    eventually(|| async {
        let answer = app.post("/v1/passengers", &passenger()).await;
        if answer.status == StatusCode::CREATED { Ok(()) } else { Err(answer.body) }
    })
    .await;
    let mut bytes = 0;
    while let Some(piece) = slow.chunk().await.expect("the rest") {
        bytes += piece.len();
    }
    assert!(bytes > 10_000_000, "{bytes}");
}

#[tokio::test]
async fn a_refused_password_fails_the_start_with_a_clear_error() {
    let database = Database::empty().await;
    let mut config = database.config.clone();
    config.dbname("no_such_database");
    let conninfo = ConnInfo::from_config(config).expect("no TLS required");
    let error = TestApp::try_start_on(&conninfo, &[]).await.err().expect("refused").to_string();
    assert!(error.contains("DATABASE_URL"), "{error}");
}

#[tokio::test]
async fn startup_waits_for_an_unreachable_database() {
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let mut config = tokio_postgres::Config::new();
    config.host_path(nowhere.path()).user("postgres");
    let conninfo = ConnInfo::from_config(config).expect("no TLS required");
    let app = TestApp::start_on(&conninfo, &[]).await;
    app.get("/livez").await.expect(StatusCode::OK);
    app.get("/readyz").await.expect_problem(503, "unavailable");
    send(app.request(Method::GET, "/passengerlist")).await.expect_problem(503, "unavailable");
}
