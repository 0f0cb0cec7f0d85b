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

/// Runs the SQL that the error of a start has for each difference.
async fn repair(database: &Database, resource: &'static Resource) {
    let client = database.client().await;
    let table = Table::read(&client, resource).await.expect("read");
    let differences = differences(resource, table.as_ref());
    assert!(differences.iter().any(|difference| !difference.is_safe), "{differences:?}");
    for statement in differences.iter().filter(|difference| !difference.is_safe).flat_map(|found| &found.sql) {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:#?}"));
    }
}

#[tokio::test]
async fn the_sql_of_a_difference_runs_as_printed_also_for_names_that_must_be_quoted() {
    let (database, folder) = (Database::migrated().await, tempfile::tempdir().expect("a folder"));
    let order = |columns: &str| -> Resources {
        fs::write(folder.path().join("order.toml"), format!("name = \"order\"\n{columns}")).expect("written");
        registry::load(Some(folder.path()), None).unwrap_or_else(|error| panic!("{error}\n{columns}"))
    };
    let of = |resources: Resources| *resources.iter().find(|resource| resource.name == "order").expect("it is there");
    let client = database.client().await;
    let types = [
        ("type = \"boolean\"", "true", "default = true"),
        ("type = \"integer\"\nformat = \"int16\"\nminimum = 0", "1", "default = 1"),
        ("type = \"integer\"", "1", "default = 1"),
        ("type = \"number\"\nmaximum = 10", "1", "default = 1.0"),
        ("type = \"decimal(6,2)\"", "1", "default = \"1.00\""),
        ("type = \"string\"\nmaxLength = 40", "'1'", "default = \"1\""),
        ("type = \"string\"\nenum = [\"1\", \"true\"]", "'1'", "default = \"1\""),
        ("type = \"string\"\nformat = \"date\"", "'2026-01-02'", "default = \"2026-01-02\""),
        ("type = \"string\"\nformat = \"date-time\"", "'2026-01-02T00:00:00Z'", "default = \"2026-01-02T00:00:00Z\""),
        ("type = \"string\"\nformat = \"uuid\"", "'0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10'", ""),
    ];
    let convertible = |from: usize, to: usize| {
        let kind = |index: usize| match index {
            0..=4 => 0,
            7 | 8 => 1,
            9 => 2,
            _ => 3,
        };
        from == to || kind(from) == kind(to) || to == 5
    };
    for (from, (before, value, default)) in types.iter().enumerate() {
        for (to, (after, _, other)) in types.iter().enumerate().filter(|(to, _)| *to != from) {
            client
                .batch_execute("drop table if exists \"order\" cascade; drop function if exists order_draw_version()")
                .await
                .expect("dropped");
            let first = order(&column("user", &format!("{before}\n{default}\nindex = true")));
            follow(&database, first).await.expect("created");
            if convertible(from, to) {
                let insert = format!("insert into \"order\" (uuid, \"user\") values (gen_random_uuid(), {value})");
                client.batch_execute(&insert).await.unwrap_or_else(|error| panic!("{insert}: {error:#?}"));
            }
            let second = order(&column("user", &format!("{after}\n{other}\nindex = true")));
            if let Ok(count) = follow(&database, second).await {
                assert!(count > 0 && before.contains("string") == after.contains("string"), "{before} {after}");
                continue;
            }
            repair(&database, of(second)).await;
            follow(&database, second).await.unwrap_or_else(|error| panic!("{before} {after}: {error}"));
            assert_eq!(differ(&database, of(second)).await, Vec::<String>::new(), "{before} {after}");
        }
    }
    // A column is added, removed, renamed; the rows stay.
    let (text, number) = ("type = \"string\"\nminLength = 3\nmaxLength = 9", "type = \"integer\"\nminimum = 7");
    client.batch_execute("drop table \"order\" cascade; drop function order_draw_version()").await.expect("dropped");
    follow(&database, order(&column("user", text))).await.expect("created");
    let insert = "insert into \"order\" (uuid, \"user\") values (gen_random_uuid(), 'abc')";
    client.batch_execute(insert).await.expect("stored");
    let more = order(&(column("user", text) + &column("end", number) + &column("desc", text)));
    assert!(follow(&database, more).await.is_err());
    repair(&database, of(more)).await;
    assert_eq!(follow(&database, more).await.expect("repaired"), 0);
    let fewer = order(&(column("user", text) + &column("end", number)));
    repair(&database, of(fewer)).await;
    assert_eq!(follow(&database, fewer).await.expect("repaired"), 0);
    let renamed = order(&(column("table", text) + &column("end", number)));
    let error = format!("{:#}", anyhow::Error::from(follow(&database, renamed).await.expect_err("a name is new")));
    let (_, rename) = error.split_once("if it is column user renamed: ").expect("the statements that rename it");
    let (rename, _) = rename.split_once(";)").expect("more follows");
    client.batch_execute(rename).await.unwrap_or_else(|error| panic!("{rename}: {error:#?}"));
    assert_eq!(follow(&database, renamed).await.expect("renamed"), 0);
    let row = client.query_one("select \"table\", \"end\" from \"order\"", &[]).await.expect("the row is there");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("abc", 7));
    // A table of another program.
    client.batch_execute("drop table \"order\" cascade; drop function order_draw_version()").await.expect("dropped");
    let other = "create table \"order\" (uuid serial, \"user\" text, constraint order_pkey primary key (uuid))";
    client.batch_execute(other).await.expect("created");
    let own = order(&column("user", text));
    repair(&database, of(own)).await;
    assert_eq!(follow(&database, own).await.expect("replaced"), 0);
    client.query_opt("select uuid, \"user\" from order_before", &[]).await.expect("the other table is kept");
}

#[tokio::test]
async fn a_pattern_that_passes_the_check_works_in_postgresql() {
    let (database, folder) = (Database::migrated().await, tempfile::tempdir().expect("a folder"));
    let client = database.client().await;
    for (pattern, text) in [
        (r"^[A-Z]{2}\d{3,}$", "AB123"),
        (r"(?i)^ab?c*?$", "ABC"),
        (r"^(?:a|b)+[^x\]y]$", "abz"),
        (r"^[[:alpha:]_\-]+\.$", "a_-."),
        (r"^[]a]\S{1,255}\tb$", "]x\tb"),
    ] {
        let description = column("name", &format!("type = \"string\"\npattern = '{pattern}'"));
        assert!(boats(with(folder.path(), &description)).fields()[0].read_csv(text).is_some(), "{pattern}");
        let row = client.query_one("select $1::text ~ $2", &[&text, &pattern]).await.expect(pattern);
        assert!(row.get::<_, bool>(0), "{pattern}");
    }
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
