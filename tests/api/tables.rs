//! A table follows its description: lossless changes are made automatically; otherwise the start fails with the SQL to run.

use std::fs;
use std::path::Path;

use pycrudapi::db::migrate::{self, MigrateError};
use pycrudapi::resource::definition::Resource;
use pycrudapi::resource::registry::{self, Resources};
use pycrudapi::resource::schema::{Table, differences};

use crate::harness::{Database, TestApp, passenger, resources};

/// The built-in resources and one with this description.
fn with(folder: &Path, text: &str) -> Resources {
    fs::write(folder.join("boats.toml"), format!("name = \"boats\"\n{text}")).expect("written");
    registry::load(Some(folder), None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn boats(resources: Resources) -> &'static Resource {
    resources.iter().find(|resource| resource.name == "boats").expect("it is there")
}

fn column(name: &str, rest: &str) -> String {
    format!("[[column]]\nname = \"{name}\"\n{rest}\n")
}

async fn follow(database: &Database, resources: Resources) -> Result<usize, MigrateError> {
    migrate::run(&mut database.client().await, &resources, None).await
}

async fn differ(database: &Database, resource: &Resource) -> Vec<String> {
    let table = Table::read(&database.client().await, resource).await.expect("read");
    differences(resource, table.as_ref()).into_iter().map(|difference| difference.what).collect()
}

#[tokio::test]
async fn tables_created_by_migrations_match_their_descriptions() {
    let database = Database::migrated().await;
    assert_eq!(differ(&database, resources()[0]).await, Vec::<String>::new());
}

#[tokio::test]
async fn lossless_changes_are_made_automatically() {
    let (database, folder) = (Database::migrated().await, tempfile::tempdir().expect("a folder"));
    let name = column("name", "type = \"string\"\nminLength = 1\nmaxLength = 20");
    let kind = column("type", "type = \"string\"\nenum = [\"cargo\", \"tanker\"]");
    let built = column("built", "type = \"integer\"\nformat = \"int16\"\nminimum = 1900\nmaximum = 2000");
    let first = with(folder.path(), &format!("{name}{kind}{built}"));
    assert_eq!(follow(&database, first).await.expect("made"), 1);
    assert_eq!(follow(&database, first).await.expect("nothing is left"), 0);
    let client = database.client().await;
    client
        .batch_execute("insert into boats (uuid, name, type, built) values (gen_random_uuid(), 'a', 'cargo', 1950)")
        .await
        .expect("stored");
    let name = column("name", "type = \"string\"\nmaxLength = 30\nnullable = true\nindex = \"trigram\"");
    let kind = column("type", "type = \"string\"\nenum = [\"cargo\", \"tanker\", \"ferry\"]");
    let built = column("built", "type = \"integer\"\nformat = \"int16\"\nminimum = 1800\nindex = true");
    let more = column("draught", "type = \"decimal(4,2)\"\nnullable = true\nminimum = 0\nindex = true")
        + &column("flag", "type = \"string\"\ndefault = \"none\"");
    let second = with(folder.path(), &format!("{name}{kind}{built}{more}"));
    assert!(follow(&database, second).await.expect("changed") >= 7);
    assert_eq!(differ(&database, boats(second)).await, Vec::<String>::new());
    let row = client.query_one("select name, flag, draught from boats", &[]).await.expect("the row is there");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("a", "none"));
}

#[tokio::test]
async fn changes_that_may_lose_data_fail_the_start_with_their_sql() {
    let (database, folder) = (Database::migrated().await, tempfile::tempdir().expect("a folder"));
    let name = |rest: &str| column("name", &format!("type = \"string\"\n{rest}"));
    follow(&database, with(folder.path(), &name("maxLength = 20"))).await.expect("made");
    for (text, sql) in [
        (
            name("maxLength = 10"),
            "drop constraint boats_name, add constraint boats_name check (char_length(name) between 0 and 10)",
        ),
        (name("maxLength = 20\npattern = \"^a\""), "char_length(name) between 0 and 20 and name ~ '^a'"),
        (name("maxLength = 20") + &column("age", "type = \"integer\""), "alter table boats add column age bigint"),
        (column("name", "type = \"number\""), "alter column name type double precision using name::double precision"),
        (column("other", "type = \"string\"\nnullable = true"), "alter table boats alter column name drop not null"),
    ] {
        let resources = with(folder.path(), &text);
        let error = follow(&database, resources).await.expect_err("the change may lose data");
        let error = format!("{:#}", anyhow::Error::from(error));
        assert!(error.contains(sql) && error.contains("boats"), "{text}: {error}");
        let flag = format!("--resources-dir={}", folder.path().display());
        let ended = TestApp::try_start_on(&database.conninfo(), &[&flag]).await;
        assert!(ended.is_err(), "{text}");
    }
    // No table was changed by the failed starts.
    assert_eq!(differ(&database, boats(with(folder.path(), &name("maxLength = 20")))).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stored_value_that_violates_the_rules_is_an_error_of_its_row_only() {
    let app = TestApp::start().await;
    let good: Vec<String> = futures_util::future::join_all((0..20).map(|_| {
        let body = passenger();
        let app = &app;
        async move { app.create(&body).await }
    }))
    .await;
    let client = app.database.as_ref().expect("own database").client().await;
    client.batch_execute("alter table passengers drop constraint passengers_sex").await.expect("dropped");
    client
        .execute(&format!("update passengers set sex = 'other' where uuid = '{}'", good[7]), &[])
        .await
        .expect("changed");
    // Concurrently, so that lookups share statements.
    let answers =
        futures_util::future::join_all(good.iter().map(|uuid| app.get(&format!("/v1/passengers/{uuid}")))).await;
    for (index, answer) in answers.iter().enumerate() {
        if index == 7 {
            answer.expect_problem(500, "internal");
        } else {
            answer.expect(reqwest::StatusCode::OK);
        }
    }
    app.get("/v1/passengers").await.expect_problem(500, "internal");
    app.get("/v1/passengers?sex=eq.male").await.expect(reqwest::StatusCode::OK);
}
