//! A table follows its description: by itself where that loses nothing, otherwise the start ends and says what to do.

use std::fs;
use std::path::Path;

use pycrudapi::db::migrate::{self, MigrateError};
use pycrudapi::resource::definition::Resource;
use pycrudapi::resource::registry::{self, Resources};
use pycrudapi::resource::schema::{Table, differences};

use crate::harness::{Database, TestApp, resources};

/// The built-in resources and one of this description.
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
async fn a_table_that_migrations_made_is_as_its_description_says() {
    let database = Database::migrated().await;
    assert_eq!(differ(&database, resources()[0]).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_loses_nothing_is_done_by_itself() {
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
async fn what_might_lose_something_ends_the_start_with_the_sql_that_would_do_it() {
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
        let error = follow(&database, resources).await.expect_err("it is left to a person");
        let error = format!("{:#}", anyhow::Error::from(error));
        assert!(error.contains(sql) && error.contains("boats"), "{text}: {error}");
        let flag = format!("--resources-dir={}", folder.path().display());
        let ended = TestApp::try_start_on(&database.conninfo(), &[&flag]).await;
        assert!(ended.is_err(), "{text}");
    }
    // Nothing was changed on the way.
    assert_eq!(differ(&database, boats(with(folder.path(), &name("maxLength = 20")))).await, Vec::<String>::new());
}
