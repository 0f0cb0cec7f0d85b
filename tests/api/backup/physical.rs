//! Physical backups of the embedded PostgreSQL, made and restored next to the running service.

use reqwest::StatusCode;

use super::{Follower, Rig, names, open_folder, received};
use crate::harness::{TestApp, eventually, passenger, passenger_with};
use crate::transfer::{refused, succeeded};
use pycrudapi::db::conninfo::ConnInfo;

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_has_the_rows_of_its_time_and_reuses_no_version() {
    let rig = Rig::start().await;
    let uuid = rig.app.create(&passenger_with("name", "before")).await;
    rig.app.put(&format!("/v1/passengers/{uuid}"), &passenger_with("name", "before")).await.expect(StatusCode::OK);
    let id = rig.backup(&[]);
    // A version issued after the backup, which must not be issued again.
    let seen = rig.app.put(&format!("/v1/passengers/{uuid}"), &passenger_with("name", "after")).await;
    let listed = succeeded(rig.program(&["backups", "--check"]));
    assert!(listed.contains(&id) && listed.contains("physical") && listed.contains(" now "), "{listed}");

    let restored = rig.restore(&["--backup", &id]);
    let postgres = restored.start();
    let conninfo = ConnInfo::from_config(postgres.config()).expect("no TLS required");
    let app = TestApp::start_on(&conninfo, &[]).await;
    let found = app.get(&format!("/v1/passengers/{uuid}")).await;
    assert_eq!(found.expect(StatusCode::OK).json()["name"], "before");
    let history = app.get(&format!("/v1/passengers/{uuid}/history")).await;
    assert_eq!(history.expect(StatusCode::OK).json().as_array().map(Vec::len), Some(2), "{}", history.body);
    let changed = app.put(&format!("/v1/passengers/{uuid}"), &passenger()).await;
    let version = |etag: &str| etag.trim_matches('"').parse::<i64>().unwrap_or_else(|_| panic!("no version in {etag}"));
    let (now, before) = (version(changed.header("etag")), version(seen.header("etag")));
    assert!(now > before + 100_000_000, "{now} may have been issued before, like {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_instant_a_restore_contains_everything_received() {
    let rig = Rig::start().await;
    let _follower = Follower::start(&rig, &[]);
    rig.app.create(&passenger_with("name", "the last")).await;
    let written = jiff::Timestamp::now();
    eventually(|| async {
        let up_to = received(rig.folder());
        if up_to.is_some_and(|up_to| up_to > written) { Ok(()) } else { Err(format!("{up_to:?}")) }
    })
    .await;
    assert_eq!(rig.restore(&[]).names().await, ["the last"]);
    let listed = succeeded(rig.program(&["backups"]));
    assert!(listed.contains(" … "), "{listed}");
    for (at, told) in [("2999-01-01T00:00:00Z", ", which is in the future"), ("2001-01-01T00:00:00+01:00", "")] {
        let said = refused(&rig.program(&["restore", "--at", at, "--into", "/tmp/never-made"]));
        assert!(said.contains("no backup can be restored to ") && said.contains(told), "{said}");
        assert!(said.contains("the restorable instants are ") && said.contains(" to "), "{said}");
    }
    let by_id = listed.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a backup");
    let said =
        refused(&rig.program(&["restore", "--backup", by_id, "--at=2001-01-01T00:00:00Z", "--into=/tmp/never-made"]));
    assert!(said.contains(&format!("backup {by_id} cannot be restored to 2001")), "{said}");
    assert!(!std::path::Path::new("/tmp/never-made").exists());
    // Every time format of the API, and no other.
    let zoned = written.to_zoned(jiff::tz::TimeZone::get("Europe/Warsaw").expect("a zone"));
    let (clock, local) = (zoned.strftime("%Y%m%d %H%M%S.%6f"), zoned.strftime("%Y-%m-%dT%H:%M:%S.%6f[Europe/Warsaw]"));
    for at in [local.to_string(), format!("{clock} {}", zoned.strftime("%z")), written.to_string().to_lowercase()] {
        rig.restore(&["--at", &at]);
    }
    for wrong in [
        "now",
        "2026-11-26T22:45:01",
        "2026-11-26T22:45:60Z",
        "2026-11-26T22:45:01+01:00[UTC]",
        "+002026-11-26T22:45:01Z",
    ] {
        let said = refused(&rig.program(&["restore", "--at", wrong, "--into", "/tmp/never-made"]));
        assert!(said.contains("expected an instant such as"), "{said}");
    }
    let second = rig.program(&["backup", "--follow"]);
    assert!(refused(&second).contains("another process follows"), "{}", refused(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_service_backs_up_to_the_same_folder_on_a_new_timeline() {
    let rig = Rig::start().await;
    let received_behind = async |moment: jiff::Timestamp| {
        eventually(|| async {
            let up_to = received(rig.folder());
            if up_to.is_some_and(|up_to| up_to > moment) { Ok(()) } else { Err(format!("{up_to:?}")) }
        })
        .await;
    };
    let follower = Follower::start(&rig, &[]);
    rig.app.create(&passenger_with("name", "kept")).await;
    let fork = jiff::Timestamp::now();
    rig.app.create(&passenger_with("name", "left behind")).await;
    let before = jiff::Timestamp::now();
    received_behind(before).await;
    drop(follower);
    let restored = rig.restore(&["--at", &fork.to_string()]);
    let postgres = restored.start();
    let mut command = rig.command(&["backup", "--follow"]);
    command.env("DATA_DIR", &restored.place);
    let _follower = Follower::spawn(command);
    let app = TestApp::start_on(&ConnInfo::from_config(postgres.config()).expect("no TLS"), &[]).await;
    app.create(&passenger_with("name", "of the new line")).await;
    let after = jiff::Timestamp::now();
    received_behind(after).await;
    assert_eq!(rig.restore(&[]).names().await, ["kept", "of the new line"]);
    assert_eq!(rig.restore(&["--at", &before.to_string()]).names().await, ["kept", "left behind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_are_removed_and_the_newest_is_kept() {
    let rig = Rig::start().await;
    let first = rig.backup(&["--keep=2"]);
    let second = rig.backup(&["--keep=2"]);
    let third = rig.backup(&["--keep=2"]);
    let listed = succeeded(rig.program(&["backups"]));
    assert!(!listed.contains(&first) && listed.contains(&second) && listed.contains(&third), "{listed}");
    let fourth = rig.backup(&["--keep-for=1s", "--kind=logical"]);
    let listed = succeeded(rig.program(&["backups"]));
    assert!(listed.contains(&fourth), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_drill_compares_every_table_and_metrics_report_its_result() {
    let rig = Rig::start().await;
    rig.app.create(&passenger()).await;
    let id = rig.backup(&[]);
    // Writes after the backup are not reported as a difference.
    rig.app.create(&passenger()).await;
    let said = succeeded(rig.program(&["restore-drill"]));
    assert!(said.starts_with(&format!("backup {id} is what the database was at ")), "{said}");

    let record = rig.folder().join(&id).join("backup.json");
    let text = std::fs::read_to_string(&record).expect("a record");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let tables = value["state"]["tables"].as_array_mut().expect("tables");
    tables.iter_mut().find(|table| table["name"] == "passengers").expect("passengers")["hash"] = "1".into();
    std::fs::write(&record, value.to_string()).expect("written");
    let said = refused(&rig.program(&["restore-drill"]));
    assert!(said.contains("rows of passengers differ"), "{said}");

    eventually(|| async {
        let metrics =
            crate::harness::send(rig.app.client.get(format!("http://{}/metrics", rig.app.metrics_addr))).await.body;
        let has = |name: &str| metrics.lines().any(|line| line.starts_with(&format!("{name} ")));
        let names = [
            "backup_last_success_timestamp_seconds",
            "backup_last_duration_seconds",
            "backup_last_size_bytes",
            "restore_drill_last_success_timestamp_seconds",
            "restore_drill_last_failure_timestamp_seconds",
            "restore_drill_last_duration_seconds",
        ];
        match names.iter().find(|name| !has(name)) {
            None => Ok(()),
            Some(missing) => Err(format!("no {missing} in {metrics}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_empty_directory_is_refused() {
    let rig = Rig::start().await;
    rig.backup(&[]);
    let into = open_folder();
    std::fs::write(into.path().join("mine"), "precious").expect("written");
    let at = into.path().to_str().expect("UTF-8");
    let said = refused(&rig.program(&["restore", "--into", at]));
    assert!(said.contains("is not empty"), "{said}");
    assert_eq!(std::fs::read_dir(into.path()).expect("listed").count(), 1);
    let live = refused(&rig.program(&["restore", "--into", rig.data.path().to_str().expect("UTF-8")]));
    assert!(live.contains("is not empty"), "{live}");
    assert!(names(&super::connect(&rig._postgres).await).await.is_empty());
}
