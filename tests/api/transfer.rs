//! Import, export and seeding.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use pycrudapi::db::copy::{self, Input};
use pycrudapi::db::migrate;
use reqwest::StatusCode;

use crate::harness::{Database, TestApp, eventually};
use crate::proxy::{Moment, Proxy};

const REAL: &str = include_str!("../../data/passengers.csv");

/// Runs the program with a database.
pub fn program(arguments: &[&str], database: &Database, input: &str) -> Output {
    program_at(arguments, &database.url(), input)
}

/// The same with the database's address.
pub fn program_at(arguments: &[&str], database_url: &str, input: &str) -> Output {
    program_fed(arguments, database_url, input.as_bytes())
}

/// The same with arbitrary bytes as input.
pub fn program_fed(arguments: &[&str], database_url: &str, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database_url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || {
        let _ = stdin.write_all(&input); // a refused import closes the pipe early
    });
    let output = child.wait_with_output().expect("it ends");
    feeding.join().expect("no panic");
    output
}

#[track_caller]
pub fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
pub fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn count(database: &Database) -> i64 {
    let row = database.client().await.query_one("select count(*) from passengers", &[]).await.expect("counted");
    row.get(0)
}

#[tokio::test]
async fn exporting_importing_and_exporting_again_is_byte_identical() {
    let (first, second) = (Database::migrated().await, Database::empty().await);
    assert_eq!(succeeded(program(&["import", "-"], &first, REAL)), "891 passengers imported\n");
    let exported = succeeded(program(&["export"], &first, ""));
    assert_eq!(exported.lines().count(), 892);
    let header = "uuid,survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare";
    assert_eq!(exported.lines().next(), Some(header));
    // `import` migrates an empty database itself.
    assert_eq!(succeeded(program(&["import", "-"], &second, &exported)), "891 passengers imported\n");
    assert_eq!(succeeded(program(&["export"], &second, "")), exported);
}

#[tokio::test]
async fn names_with_quotes_commas_and_line_breaks_survive_the_round_trip() {
    let (first, second) = (Database::migrated().await, Database::migrated().await);
    let csv = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n\
               true,1,\" \"\"quoted\"\", with\nbreak and ☃ \",female,0.42,0,0,1e-7\n\
               false,3,\\.,male,,8,9,0\n";
    succeeded(program(&["import", "-"], &first, csv));
    let exported = succeeded(program(&["export"], &first, ""));
    assert!(exported.contains("\" \"\"quoted\"\", with\nbreak and ☃ \""), "{exported}");
    succeeded(program(&["import", "-"], &second, &exported));
    assert_eq!(succeeded(program(&["export"], &second, "")), exported);
}

#[tokio::test]
async fn the_well_known_titanic_headers_are_accepted() {
    for header in [
        "Survived,Pclass,Name,Sex,Age,Siblings/Spouses Aboard,Parents/Children Aboard,Fare",
        "survived,pclass,name,sex,age,siblings_spouses_aboard,parents_children_aboard,fare",
        "Fare,Parents_Children_Aboard,Siblings_Spouses_Aboard,Age,Sex,Name,Pclass,Survived",
    ] {
        let database = Database::migrated().await;
        let row =
            if header.starts_with("Fare") { "7.25,0,1,22,male,Mr. Owen,3,0" } else { "0,3,Mr. Owen,male,22,1,0,7.25" };
        succeeded(program(&["import", "-"], &database, &format!("{header}\n{row}\n")));
        let exported = succeeded(program(&["export"], &database, ""));
        assert!(exported.ends_with(",false,3,Mr. Owen,male,22,1,0,7.25\n"), "{exported}");
    }
}

#[tokio::test]
async fn an_invalid_row_aborts_the_import_with_line_column_and_reason_and_stores_nothing() {
    let database = Database::migrated().await;
    let good = "true,1,Good,male,1,0,0,1\n";
    let header = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n";
    for (row, line, column) in [
        ("maybe,1,X,male,1,0,0,1", 4, "survived"),
        ("true,4,X,male,1,0,0,1", 4, "passengerClass"),
        ("true,1,,male,1,0,0,1", 4, "name"),
        ("true,1,X,other,1,0,0,1", 4, "sex"),
        ("true,1,X,male,131,0,0,1", 4, "age"),
        ("true,1,X,male,old,0,0,1", 4, "age"),
        ("true,1,X,male,1,0,0,NaN", 4, "fare"),
        ("true,1,X,male,1,-1,0,1", 4, "siblingsOrSpousesAboard"),
        ("true,1,X,male,1,0,0.5,1", 4, "parentsOrChildrenAboard"),
        ("true,1,X,male,1,0,0,inf", 4, "fare"),
    ] {
        let message = refused(&program(&["import", "-"], &database, &format!("{header}{good}{good}{row}\n{good}")));
        assert!(message.contains(&format!("line {line}, column {column}: must be")), "{row}: {message}");
    }
    let short = refused(&program(&["import", "-"], &database, &format!("{header}{good}true,1\n")));
    assert!(short.contains("line 3: must have 8 cells"), "{short}");
    let unknown = refused(&program(&["import", "-"], &database, "survived,title\n"));
    assert!(unknown.contains("line 1") && unknown.contains("title"), "{unknown}");
    let missing = refused(&program(&["import", "-"], &database, "survived\n"));
    assert!(missing.contains("passengerClass"), "{missing}");
    let file = refused(&program(&["import", "/no/such/file.csv"], &database, ""));
    assert!(file.contains("/no/such/file.csv"), "{file}");
    // An error after many rows: PostgreSQL has already received the earlier rows, which must not be kept.
    let many = format!("{header}{}oops,1,X,male,1,0,0,1\n", good.repeat(50_000));
    assert!(refused(&program(&["import", "-"], &database, &many)).contains("line 50002, column survived"));
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_file_without_rows_is_refused_unless_explicitly_allowed() {
    let database = Database::migrated().await;
    let passengers = REAL.lines().next().expect("a header");
    let air_quality = "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5";
    for (resource, header) in [("passengers", passengers), ("air-quality", air_quality)] {
        for text in ["", "\n", header, &format!("{header}\n"), &format!("{header}\r\n\r\n")] {
            let import = ["import", "--resource", resource, "-"];
            assert!(refused(&program(&import, &database, text)).contains("--allow-empty"), "{text:?}");
            let allowed = ["import", "--allow-empty", "--resource", resource, "-"];
            let said = succeeded(program(&allowed, &database, text));
            assert!(said.starts_with("0 "), "{text:?}: {said}");
        }
    }
}

#[tokio::test]
async fn importing_an_existing_uuid_is_refused_as_a_whole() {
    let database = Database::migrated().await;
    succeeded(program(&["import", "-"], &database, REAL));
    let exported = succeeded(program(&["export"], &database, ""));
    let message = refused(&program(&["import", "-"], &database, &exported));
    assert!(message.contains("already exists"), "{message}");
    assert_eq!(count(&database).await, 891);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_servers_started_concurrently_migrate_and_seed_once() {
    let database = Database::empty().await;
    let conninfo = database.conninfo();
    let apps = futures_util::future::join_all((0..5).map(|_| TestApp::start_on(&conninfo, &["--seed=true"]))).await;
    for app in &apps {
        let list = app.get("/passengerlist").await;
        assert_eq!(list.expect(StatusCode::OK).json().as_array().map(Vec::len), Some(891));
    }
}

#[tokio::test]
async fn deleted_passengers_stay_deleted_after_a_restart() {
    let database = Database::empty().await;
    let mut app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    assert_eq!(count(&database).await, 891);
    database.client().await.batch_execute("delete from passengers").await.expect("deleted");
    app.stop().await;
    let app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    assert_eq!(app.get("/passengerlist").await.body, "[]");
}

#[tokio::test]
async fn the_seed_contains_the_real_passengers() {
    let database = Database::empty().await;
    let _app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    let client = database.client().await;
    let sql = "select count(*), count(*) filter (where survived), count(*) filter (where sex = 'female'), \
               count(*) filter (where age is null) from passengers";
    let row = client.query_one(sql, &[]).await.expect("counted");
    let counts: [i64; 4] = std::array::from_fn(|column| row.get(column));
    assert_eq!(counts, [891, 342, 314, 177]);
}

#[tokio::test]
async fn an_import_without_a_response_to_its_commit_reports_an_unknown_outcome() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(&database.config).await;
    for (moment, rows) in [(Moment::Before, 0), (Moment::After, 891)] {
        let mut client = migrate::connect(&proxy.conninfo(&database.config)).await.expect("connected");
        proxy.cut(b"COMMIT\0", moment, 1);
        let lost =
            copy::import(crate::harness::resources()[0], &mut client, Input::of(REAL.as_bytes()), false, |_| ()).await;
        proxy.assert_cut();
        let sentence = lost.expect_err("the answer was lost").to_string();
        assert!(sentence.contains("may or may not be stored"), "{sentence}");
        // PostgreSQL completes the commit it received even if the connection is already closed.
        eventually(|| async {
            let stored = count(&database).await;
            if stored == rows { Ok(()) } else { Err(format!("{stored} rows")) }
        })
        .await;
    }
}
