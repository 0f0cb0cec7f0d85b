//! Logical backups, for a database managed by others.

use std::process::{Command, Output};

use reqwest::StatusCode;

use super::open_folder;
use crate::harness::{Database, TestApp, passenger, passenger_with, send};
use crate::transfer::{refused, succeeded};

fn program(database: &Database, folder: &tempfile::TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DATABASE_URL", database.url())
        .env("BACKUP_DIR", folder.path())
        .output()
        .expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_histories_and_tokens_are_restored_into_an_empty_database() {
    let mut app = TestApp::start_with(&["--seed=true"]).await;
    let database = app.database.take().expect("own database");
    app.until_ready().await;
    let uuid = app.create(&passenger_with("name", "first")).await;
    let changed = app.put(&format!("/v1/passengers/{uuid}"), &passenger_with("name", "second \\ \t \n ż")).await;
    changed.expect(StatusCode::OK);
    let step = app.request(reqwest::Method::POST, "/v1/steps?component=a&version=1&owner=o&status=started");
    send(step).await.expect(StatusCode::CREATED);
    let keyed = app.request(reqwest::Method::POST, "/v1/passengers").header("idempotency-key", "k").json(&passenger());
    send(keyed).await.expect(StatusCode::CREATED);
    succeeded(program(&database, &open_folder(), &["token", "create", "--name=t", "--scope=admin"]));
    let folder = open_folder();
    for key in [None, Some("0a".repeat(32))] {
        let file = folder.path().with_extension("key");
        let flag = format!("--key-file={}", file.display());
        let flags: &[&str] = match &key {
            Some(text) => {
                std::fs::write(&file, text).expect("written");
                &[&flag]
            }
            None => &[],
        };
        let made = succeeded(program(&database, &folder, &[&["backup", "--kind=logical"], flags].concat()));
        assert!(made.contains(", logical, "), "{made}");
        let empty = Database::empty().await;
        let into = empty.url();
        succeeded(program(&database, &folder, &[&["restore", "--into", into.as_str()], flags].concat()));
        let twice = program(&database, &folder, &[&["restore", "--into", into.as_str()], flags].concat());
        assert!(refused(&twice).contains("is not empty"), "{}", refused(&twice));
        succeeded(program(&database, &folder, &[&["restore-drill"], flags].concat()));

        let restored = TestApp::start_on(&empty.conninfo(), &[]).await;
        for path in [
            "/v1/passengers?limit=1000".to_owned(),
            format!("/v1/passengers/{uuid}/history"),
            "/v1/steps".to_owned(),
            "/v1/air-quality".to_owned(),
        ] {
            let (there, here) = (app.get(&path).await, restored.get(&path).await);
            let [there, here] = [there, here].map(|answer| {
                let body = &answer.expect(StatusCode::OK).body;
                // Each server has its own cache.
                body.replace("\"cache\":true", "\"cache\":false")
            });
            assert_eq!(there, here, "{path}");
        }
        let tokens = "select count(*) from api_tokens";
        assert_eq!(empty.client().await.query_one(tokens, &[]).await.expect("counted").get::<_, i64>(0), 1);
        // Triggers are enabled again, and no version is reused.
        let append_only = empty.client().await.batch_execute("delete from steps").await;
        assert!(append_only.is_err());
        let later = restored.put(&format!("/v1/passengers/{uuid}"), &passenger()).await;
        let version = |etag: &str| etag.trim_matches('"').parse::<i64>().expect("a version");
        assert!(version(later.header("etag")) > version(changed.header("etag")) + 100_000_000);
        let step = restored.request(reqwest::Method::POST, "/v1/steps?component=a&version=2&owner=o&status=started");
        send(step).await.expect(StatusCode::CREATED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_refused_and_the_database_stays_empty_for_the_next_attempt() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().expect("own database");
    app.create(&passenger()).await;
    let folder = open_folder();
    let made = succeeded(program(database, &folder, &["backup", "--kind=logical"]));
    let id = made.strip_prefix("backup ").and_then(|rest| rest.split(',').next()).expect("an id").to_owned();
    let record = folder.path().join(&id).join("backup.json");
    let text = std::fs::read_to_string(&record).expect("a record");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for table in value["state"]["tables"].as_array_mut().expect("tables") {
        table["hash"] = "1".into();
    }
    std::fs::write(&record, value.to_string()).expect("written");
    let empty = Database::empty().await;
    let into = empty.url();
    let said = refused(&program(database, &folder, &["restore", "--into", &into]));
    assert!(said.contains("rows of passengers differ"), "{said}");
    std::fs::write(&record, text).expect("written");
    succeeded(program(database, &folder, &["restore", "--into", &into]));
}
