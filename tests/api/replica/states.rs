//! A standby that lags, disappears, returns, is promoted, or belongs to another cluster: lists are still answered, and its
//! state is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pycrudapi::db::conninfo::ConnInfo;
use reqwest::StatusCode;

use super::{Rig, connect, socket, stand_by};
use crate::failures::own_postgres;
use crate::harness::{Database, TestApp, eventually, passenger_with, send};

/// The value of a series, to which every server of this process contributes.
async fn counted(app: &TestApp, series: &str) -> f64 {
    let scraped = send(app.client.get(format!("http://{}/metrics", app.metrics_addr))).await;
    let line = scraped.body.lines().find_map(|line| line.strip_prefix(series).map(str::trim));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lags_or_disappears_is_not_used_until_it_recovers() {
    let mut rig = Rig::start(&[], &["--database-read-max-lag=1s"]).await;
    let on_replica = "db_replica_reads_total{result=\"replica\"}";
    let before = counted(&rig.app, on_replica).await;
    rig.get("/v1/passengers", None).await;
    assert!(counted(&rig.app, on_replica).await > before, "the list must be read from the standby");

    rig.hold().await;
    let late = rig.app.create(&passenger_with("name", "late")).await;
    rig.until("lagging").await;
    assert!(rig.get("/v1/passengers", None).await.body.contains(&late), "a list must not be older than allowed");
    rig.go_on().await;
    rig.until("ok").await;
    assert!(rig.get("/v1/passengers", None).await.body.contains(&late));

    rig.standby.take(); // stops it
    let lost = rig.app.create(&passenger_with("name", "lost")).await;
    assert!(rig.get("/v1/passengers", None).await.body.contains(&lost), "the primary must answer immediately");
    rig.until("away").await;
    assert_eq!(counted(&rig.app, "db_replica_up").await, 0.0);
    rig.app.get("/readyz").await.expect(StatusCode::OK);
    let folder = rig.folder.path().to_owned();
    rig.standby = Some(tokio::task::block_in_place(|| stand_by(&folder, &[])));
    rig.until("ok").await;
    let before = counted(&rig.app, on_replica).await;
    assert!(rig.get("/v1/passengers", None).await.body.contains(&lost));
    assert!(counted(&rig.app, on_replica).await > before);

    let said = rig.doctor().await;
    assert!(said.contains("the standby has replayed what the primary had"), "{said}");
    assert!(said.contains("grant pg_read_all_stats to pycrudapi;"), "{said}");
    let grant = "grant pg_read_all_stats to pycrudapi";
    connect(&rig.primary).await.batch_execute(grant).await.expect("granted");
    rig.catch_up().await;
    assert!(!rig.doctor().await.contains("pg_read_all_stats"));

    rig.at_standby("select pg_promote()").await;
    assert!(rig.doctor().await.contains("it accepts writes"));
    rig.at_standby("delete from passengers").await;
    assert!(rig.get("/v1/passengers", None).await.body.contains(&lost), "a promoted standby has another history");
    rig.until("promoted").await;
    assert!(rig.get("/v1/passengers/stats", None).await.body.contains("\"count\":2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_cancelled_by_replay_is_answered_by_the_primary() {
    let settings = [("max_standby_streaming_delay", "0"), ("hot_standby_feedback", "off")];
    let rig = Arc::new(Rig::start(&settings, &["--database-read-max-lag=1h", "--pool-size=8"]).await);
    let client = connect(&rig.primary).await;
    let fill = "insert into passengers (uuid, survived, passenger_class, name, sex, siblings_or_spouses_aboard, \
                parents_or_children_aboard, fare) \
                select gen_random_uuid(), true, 1, 'row', 'male', 0, 0, 1 from generate_series(1, 60000)";
    client.batch_execute(fill).await.expect("filled");
    rig.catch_up().await;
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let (rig, over) = (rig.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // Distinct lists, so that they are not shared.
                    let path =
                        format!("/v1/passengers?name=like.*{}*&order=fare.desc&limit=5", ["r", "o", "w", "ro"][number]);
                    let answer = rig.get(&path, None).await;
                    assert_eq!(answer.json().as_array().expect("rows").len(), 5);
                }
            })
        })
        .collect();
    let failed = "db_replica_reads_total{result=\"failed\"}";
    let before = counted(&rig.app, failed).await;
    eventually(|| async {
        let lock = "begin; lock table passengers in access exclusive mode; commit";
        client.batch_execute(lock).await.expect("locked");
        if counted(&rig.app, failed).await > before { Ok(()) } else { Err("no conflict".to_owned()) }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("every list was answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_or_foreign_standby_is_not_used() {
    let (primary, _data) = own_postgres(Vec::new());
    let other = Database::migrated().await;
    let conninfo = ConnInfo::from_config(primary.config()).expect("no TLS required");
    for (url, state) in [
        ("host=/nowhere/at/all".to_owned(), "away"),
        (other.url(), "foreign"),
        (format!("host={}", socket(&primary)), "promoted"),
    ] {
        let app = TestApp::start_on(&conninfo, &[&*format!("--database-read-url={url}")]).await;
        app.until_ready().await;
        let uuid = app.create(&passenger_with("name", "here")).await;
        eventually(|| async {
            let answer = app.get("/readyz").await;
            if answer.json()["replica"]["state"] == state { Ok(()) } else { Err(answer.body) }
        })
        .await;
        assert!(app.get("/v1/passengers").await.expect(StatusCode::OK).body.contains(&uuid), "{state}");
    }
}
