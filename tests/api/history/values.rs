//! Histories preserve every value of every type exactly.

use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use pycrudapi::db::copy::{self, Input};
use pycrudapi::resource::generate::generate;
use pycrudapi::resource::registry;
use reqwest::{Method, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;

use super::{create, patch, start, version};
use crate::descriptions::random;
use crate::harness::{Answer, TestApp, send};

const CASES: u32 = 8;
const ROWS: u64 = 12;

/// The values before the newest change, as returned.
async fn before(app: &TestApp, url: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Entry {
        before: Box<RawValue>,
    }
    let answer = app.get(&format!("{url}/history?limit=1")).await;
    answer.expect(StatusCode::OK);
    let entries: Vec<Entry> = serde_json::from_str(&answer.body).expect("entries");
    entries[0].before.get().to_owned()
}

async fn put(app: &TestApp, url: &str, body: &str) -> Answer {
    send(app.request(Method::PUT, url).header("content-type", "application/json").body(body.to_owned())).await
}

/// A row as sent by a client: without its key.
fn sent(row: &str) -> String {
    let (_, rest) = row.split_once(',').expect("a key and fields");
    format!("{{{rest}")
}

#[tokio::test]
async fn rows_of_random_descriptions_are_kept_shown_and_restored_byte_by_byte() {
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let cases = (random::description("things"), any::<u64>());
    for _ in 0..CASES {
        let (text, seed) = cases.new_tree(&mut runner).expect("a case").current();
        let text = text.replacen('\n', "\nhistory = true\n", 1);
        println!("{text}"); // shown when the case fails
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("things.toml"), &text).expect("written");
        let resources = registry::load(Some(folder.path()), None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let resource = *resources.iter().find(|resource| resource.name == "things").expect("it is there");
        let app = TestApp::start_with(&[&format!("--resources-dir={}", folder.path().display())]).await;
        app.until_ready().await;
        let mut csv = Vec::new();
        generate(resource, &mut csv, ROWS, seed).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut client = app.database.as_ref().expect("own database").client().await;
        copy::import(resource, &mut client, Input::of(std::io::Cursor::new(csv)), false, |_| ())
            .await
            .expect("imported");
        let list: Vec<Box<RawValue>> =
            serde_json::from_str(&app.get("/v1/things?limit=1000").await.body).expect("an array");
        let rows: Vec<&str> = list.iter().map(|row| row.get()).collect();
        for (place, row) in rows.iter().enumerate() {
            let uuid = row.split('"').nth(3).expect("a uuid");
            let url = format!("/v1/things/{uuid}");
            let first = version(&app.get(&url).await);
            let next = sent(rows[(place + 1) % rows.len()]);
            put(&app, &url, &next).await.expect(StatusCode::OK);
            assert_eq!(before(&app, &url).await, *row);
            assert_eq!(app.get(&format!("{url}?at={first}")).await.body, *row);
            app.delete(&url).await.expect(StatusCode::NO_CONTENT);
            assert_eq!(sent(&before(&app, &url).await), next);
            let restored = app.post(&format!("{url}/restore"), &json!({"version": first})).await;
            assert_eq!(restored.expect(StatusCode::OK).body, *row);
            assert_eq!(app.get(&url).await.body, *row);
        }
    }
}

#[tokio::test]
async fn the_minimum_and_maximum_of_each_type_are_preserved() {
    let app = start().await;
    for row in [
        r#"{"label":"\u0001\"\\ é 😀","paid":true,"page":1,"quantity":-2147483648,"account":-9223372036854775808,"ratio":-0.0,"amount":"-9999999999.99","state":"open","code":"AB-1","due":"0001-01-01","booked":"0001-01-01T00:00:00.000001Z","voucher":null}"#,
        r#"{"label":"b","paid":false,"page":32767,"quantity":2147483647,"account":9223372036854775807,"ratio":1.7976931348623157e308,"amount":"0.01","state":"closed","code":"AB-1","due":"9999-12-31","booked":"9999-12-30T21:59:59.999999Z","voucher":"ffffffff-ffff-ffff-ffff-ffffffffffff"}"#,
        r#"{"label":"c","paid":false,"page":2,"quantity":null,"account":9007199254740993,"ratio":5e-324,"amount":"1.10","state":"void","code":"AB-1","due":"2024-02-29","booked":null,"voucher":null}"#,
        r#"{"label":"d","paid":false,"page":2,"quantity":0,"account":0,"ratio":0.30000000000000004,"amount":"0.00","state":"void","code":"AB-1","due":"1900-03-01","booked":"2026-10-25T00:59:59.5Z","voucher":null}"#,
    ] {
        let request = app.request(Method::POST, "/v1/ledger").header("content-type", "application/json");
        let made = send(request.body(row)).await;
        let url = made.expect(StatusCode::CREATED).header("location").to_owned();
        let now = app.get(&url).await;
        patch(&app, &url, &json!({"label": "x"})).await.expect(StatusCode::OK);
        assert_eq!(before(&app, &url).await, now.body);
        app.delete(&url).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(app.get(&format!("{url}?at={}", version(&now))).await.body, now.body);
        let restored = app.post(&format!("{url}/restore"), &json!({"version": version(&now)})).await;
        assert_eq!(restored.expect(StatusCode::OK).body, now.body);
    }
}

/// Digits other than the shortest that parse to the same number would be another number.
#[tokio::test]
async fn a_reduced_extra_float_digits_setting_changes_no_number() {
    let app = start().await;
    let database = app.database.as_ref().expect("own database");
    let shorter = "do $$ begin execute format('alter database %I set extra_float_digits = -5', current_database()); \
                   execute format('alter database %I set datestyle = ''German''', current_database()); end $$";
    database.client().await.batch_execute(shorter).await.expect("altered");
    let app = TestApp::start_on(&database.conninfo(), &[&crate::subjects::flag()]).await;
    let mut row = crate::subjects::subjects()[1].one.clone();
    row["ratio"] = json!(0.300_000_000_000_000_04);
    let url = create(&app, "/v1/ledger", &row).await;
    let now = app.get(&url).await;
    app.delete(&url).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(before(&app, &url).await, now.body);
}

#[tokio::test]
async fn columns_added_later_have_their_default_in_older_entries() {
    let folder = tempfile::tempdir().expect("a folder");
    let flag = format!("--resources-dir={}", folder.path().display());
    let describe = |more: &str| {
        let text = format!("name = \"notes\"\nhistory = true\n[[column]]\nname = \"text\"\ntype = \"string\"\n{more}");
        fs::write(folder.path().join("notes.toml"), text).expect("written");
    };
    describe("[[column]]\nname = \"gone\"\ntype = \"string\"\nnullable = true\nminLength = 1\n");
    let mut app = TestApp::start_with(&[&flag]).await;
    let url = create(&app, "/v1/notes", &json!({"text": "a", "gone": "b"})).await;
    let first = version(&app.get(&url).await);
    app.put(&url, &json!({"text": "c", "gone": null})).await.expect(StatusCode::OK);
    app.stop().await;
    let database = app.database.take().expect("own database");
    describe(
        "[[column]]\nname = \"colour\"\ntype = \"string\"\ndefault = \"red\"\n[[column]]\nname = \"size\"\ntype = \"integer\"\n\
         nullable = true\n[[column]]\nname = \"weight\"\ntype = \"number\"\nnullable = true\ndefault = 1.5\n",
    );
    let app = TestApp::start_on(&database.conninfo(), &[&flag]).await;
    let uuid = url.rsplit('/').next().expect("a uuid");
    let expected = json!({"uuid": uuid, "text": "a", "colour": "red", "size": null, "weight": 1.5});
    assert_eq!(app.get(&format!("{url}?at={first}")).await.json(), expected);
    let entries = app.get(&format!("{url}/history")).await.json();
    assert_eq!(entries[0]["before"], expected);
    let restored = app.post(&format!("{url}/restore"), &json!({"version": first})).await;
    assert_eq!(restored.expect(StatusCode::OK).json(), expected);
    // A null that was set explicitly is preserved.
    app.put(&url, &json!({"text": "d", "size": 1, "weight": null})).await.expect(StatusCode::OK);
    app.delete(&url).await.expect(StatusCode::NO_CONTENT);
    let entries = app.get(&format!("{url}/history")).await.json();
    assert_eq!(entries[0]["before"]["weight"], json!(null));
}
