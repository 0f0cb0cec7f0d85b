//! Tables that grew by bulk operations are analysed by the service: autovacuum is off.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Database, TestApp, eventually, passenger, send};
use crate::transfer::{program, succeeded};

const TABLES: [&str; 2] = ["passengers", "air_quality"];

async fn database() -> Database {
    let database = Database::migrated().await;
    for table in TABLES {
        let off = format!("alter table {table} set (autovacuum_enabled = false)");
        database.client().await.batch_execute(&off).await.expect("autovacuum is off");
    }
    database
}

/// PostgreSQL's row estimate of a table; -1 if it was never analysed.
async fn row_estimate(database: &Database, table: &str) -> f32 {
    let sql = "select reltuples from pg_class where oid = $1::text::regclass";
    database.client().await.query_one(sql, &[&table]).await.expect("an estimate").get(0)
}

async fn until_estimated(database: &Database, table: &str, rows: f32) {
    eventually(|| async {
        let row_estimate = row_estimate(database, table).await;
        if row_estimate.total_cmp(&rows).is_eq() { Ok(()) } else { Err(format!("{row_estimate} rows of {table}")) }
    })
    .await;
}

#[tokio::test]
async fn an_import_analyses_its_table_before_it_ends() {
    let database = database().await;
    let rows = |count| (0..count).map(|n| format!("2026-01-01T00:00:00Z,s{n},1,1,1,1,1,1\n")).collect::<String>();
    let passengers = include_str!("../../data/passengers.csv");
    succeeded(program(&["import", "-"], &database, passengers));
    assert_eq!(row_estimate(&database, "passengers").await, 891.0);
    let readings = format!("timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5\n{}", rows(300));
    succeeded(program(&["import", "--resource=air-quality", "-"], &database, &readings));
    assert_eq!(row_estimate(&database, "air_quality").await, 300.0);
}

#[tokio::test]
async fn seeded_tables_are_analysed() {
    let database = database().await;
    let mut app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    app.until_ready().await;
    until_estimated(&database, "passengers", 891.0).await;
    app.stop().await;
}

#[tokio::test]
async fn a_table_is_analysed_after_enough_bulk_creates() {
    let database = database().await;
    let mut app = TestApp::start_on(&database.conninfo(), &[]).await;
    let bulk = async |rows: usize| {
        let request = app.request(Method::POST, "/v1/passengers").json(&json!(vec![passenger(); rows]));
        send(request).await.expect(StatusCode::CREATED);
    };
    bulk(1200).await;
    until_estimated(&database, "passengers", 1200.0).await;
    bulk(600).await;
    bulk(600).await;
    until_estimated(&database, "passengers", 2400.0).await;
    app.stop().await;
}

#[tokio::test]
async fn only_tables_of_descriptions_are_analysed() {
    // A single role for everything.
    let (database, folder) = (Database::empty().await, tempfile::tempdir().expect("a folder"));
    let description = "name = \"boats\"\n[[column]]\nname = \"length\"\ntype = \"number\"\n";
    std::fs::write(folder.path().join("boats.toml"), description).expect("written");
    let flag = format!("--resources-dir={}", folder.path().display());
    let rows: String = (0..500).map(|row| format!("{row}.5\n")).collect();
    let import = ["import", &flag, "--resource=boats", "-"];
    succeeded(program(&import, &database, &format!("length\n{rows}")));
    assert_eq!(row_estimate(&database, "boats").await, 500.0);
    for other in ["pg_class", "nothing"] {
        let refused = database.client().await.query("select pycrudapi_analyze($1::text, 1::bigint)", &[&other]).await;
        assert_eq!(refused.expect_err(other).code(), Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE));
    }
}
