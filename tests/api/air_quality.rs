//! Air quality over HTTP: responses, filters, formats and bulk import.

use std::path::Path;

use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Answer, Database, TestApp, eventually, send};
use crate::transfer::{program, refused, succeeded};

pub const HEADER: &str = "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5\n";

const ROWS: &str = "2016-10-01T00:15:00.004Z,aq_jaen,1.5,2,0.25,4,5,6\n\
                    2016-10-01T00:00:00.006Z,aq_jaen,,12,1e-7,14,-15,16.125\n\
                    2016-10-01T00:00:00Z,aq_uam,21,22,23,24,25,\n";

const URLS: [&str; 3] = ["/air_quality", "/api/v1/measures/air", "/v1/air-quality"];

/// Loads rows as `pycrudapi import --resource air-quality -` does.
#[track_caller]
pub fn import(database: &Database, csv: &str) -> String {
    succeeded(program(&["import", "--resource", "air-quality", "-"], database, csv))
}

async fn app_with_rows(flags: &[&str]) -> TestApp {
    let app = TestApp::start_with(flags).await;
    import(app.database.as_ref().expect("own database"), &format!("{HEADER}{ROWS}"));
    app
}

#[tokio::test]
async fn readings_are_grouped_by_station_in_order_of_time_under_three_urls() {
    let app = app_with_rows(&[]).await;
    for (index, url) in URLS.into_iter().enumerate() {
        let answer = app.get(url).await;
        answer.expect(StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(
            answer.json(),
            json!({"cache": index > 0, "entities": [
                {"id": "aq_jaen", "values": [
                    {"timestamp": "2016-10-01T00:00:00.006Z", "so2": null, "no2": 12.0, "co": 1e-7, "o3": 14.0,
                     "pm10": -15.0, "pm2_5": 16.125},
                    {"timestamp": "2016-10-01T00:15:00.004Z", "so2": 1.5, "no2": 2.0, "co": 0.25, "o3": 4.0,
                     "pm10": 5.0, "pm2_5": 6.0}]},
                {"id": "aq_uam", "values": [
                    {"timestamp": "2016-10-01T00:00:00.000Z", "so2": 21.0, "no2": 22.0, "co": 23.0, "o3": 24.0,
                     "pm10": 25.0, "pm2_5": null}]}]}),
            "{url}"
        );
        assert!(answer.body.starts_with(r#"{"cache":"#), "{}", answer.body);
        let head = send(app.request(Method::HEAD, url)).await;
        head.expect(StatusCode::OK);
        assert_eq!((head.header("x-cache"), head.body.as_str()), ("HIT", ""));
        let refused = send(app.request(Method::POST, url)).await;
        refused.expect_problem(405, "method-not-allowed");
        assert_eq!(refused.header("allow"), "GET, HEAD");
    }
}

#[tokio::test]
async fn without_readings_the_list_is_empty_in_every_format() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/air_quality").await.expect(StatusCode::OK).body, r#"{"cache":false,"entities":[]}"#);
    assert_eq!(app.get("/air_quality").await.expect(StatusCode::OK).body, r#"{"cache":true,"entities":[]}"#);
    assert_eq!(app.get("/air_quality?format=csv").await.expect(StatusCode::OK).body, HEADER);
}

#[tokio::test]
async fn filters_select_stations_and_a_half_open_time_range() {
    let app = app_with_rows(&[]).await;
    let lines = async |query: &str| {
        let answer = app.get(&format!("/air_quality?format=csv&{query}")).await;
        answer.expect(StatusCode::OK);
        answer.body.lines().skip(1).map(|line| line[11..line.len().min(31)].to_owned()).collect::<Vec<_>>()
    };
    let (first, second, third) = ("00:00:00.006Z,aq_jae", "00:15:00.004Z,aq_jae", "00:00:00.000Z,aq_uam");
    assert_eq!(lines("entity=aq_jaen").await, [first, second]);
    assert_eq!(lines("entity=aq_uam,aq_jaen").await, [first, second, third]);
    assert_eq!(lines("entity=aq_uam,nobody").await, [third]);
    assert!(lines("entity=nobody").await.is_empty());
    assert_eq!(lines("from=2016-10-01T00:00:00.006Z").await, [first, second]);
    assert_eq!(lines("to=2016-10-01+00:00:00.006").await, [third]);
    assert_eq!(lines("from=2016-10-01&to=2016-10-01%2000:15:00").await, [first, third]);
    assert_eq!(lines("from=2016-10-01T02:15:00%2B02:00").await, [second]);
    assert!(lines("from=2016-10-02").await.is_empty());
    assert_eq!(lines("entity=aq_jaen&to=2016-10-01T00:15:00Z").await, [first]);
}

#[tokio::test]
async fn an_invalid_query_is_refused_with_every_parameter_named() {
    let app = TestApp::start().await;
    for (query, parameters) in [
        ("station=aq_jaen", vec!["station"]),
        ("entity=", vec!["entity"]),
        ("entity=%3D1%2B1", vec!["entity"]),
        ("from=yesterday", vec!["from"]),
        ("to=2016-02-30", vec!["to"]),
        ("from=2016-10-02&to=2016-10-01", vec!["to"]),
        ("from=2016-10-01&to=2016-10-01", vec!["to"]),
        ("from=2016-10-01&from=2016-10-02", vec!["from"]),
        ("format=xml", vec!["format"]),
        ("from=1&to=2&colour=red&format=", vec!["colour", "from", "to", "format"]),
    ] {
        let answer = app.get(&format!("/air_quality?{query}")).await;
        let problem = answer.expect_problem(400, "invalid-query");
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", answer.body));
        let named: Vec<_> = errors.iter().map(|error| error["parameter"].as_str().expect("a name")).collect();
        assert_eq!(named, parameters, "{query}");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(parameters.iter().all(|parameter| detail.contains(parameter)), "{detail}");
    }
    let problem = app.get("/air_quality?from=yesterday").await.expect_problem(400, "invalid-query");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("2016-10-01 00:15:00.004")), "{problem}");
}

#[tokio::test]
async fn csv_is_selected_by_accept_or_by_format() {
    let app = app_with_rows(&[]).await;
    let expected = format!(
        "{HEADER}2016-10-01T00:00:00.006Z,aq_jaen,,12.0,1e-7,14.0,-15.0,16.125\n\
         2016-10-01T00:15:00.004Z,aq_jaen,1.5,2.0,0.25,4.0,5.0,6.0\n\
         2016-10-01T00:00:00.000Z,aq_uam,21.0,22.0,23.0,24.0,25.0,\n"
    );
    for (path, accept, csv) in [
        ("/air_quality", "text/csv", true),
        ("/air_quality?format=csv", "*/*", true),
        ("/air_quality?format=csv", "application/json", true),
        ("/air_quality", "text/csv;q=0.5, application/json", false),
        ("/air_quality", "*/*", false),
        ("/air_quality?format=json", "text/csv", false),
    ] {
        let answer = send(app.request(Method::GET, path).header(ACCEPT, accept)).await;
        answer.expect(StatusCode::OK);
        assert_eq!(answer.header("vary"), "accept");
        if csv {
            assert_eq!(answer.header("content-type"), "text/csv", "{path} {accept}");
            assert_eq!(answer.body, expected, "{path} {accept}");
        } else {
            assert_eq!(answer.header("content-type"), "application/json", "{path} {accept}");
        }
    }
    let refused = send(app.request(Method::GET, "/air_quality").header(ACCEPT, "image/png")).await;
    refused.expect_problem(406, "not-acceptable");
}

#[tokio::test]
async fn more_readings_than_the_limit_answer_400_with_how_to_request_fewer() {
    let app = TestApp::start_with(&["--statement-timeout-ms=60000"]).await;
    let client = app.database.as_ref().expect("own database").client().await;
    let insert = "insert into air_quality (id_entity, measured_at, so2) \
                  select 'many', timestamptz '2020-01-01' + n * interval '1 minute', n from generate_series(0, 100000) n";
    client.batch_execute(insert).await.expect("inserted");
    let problem = app.get("/air_quality").await.expect_problem(400, "invalid-query");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("100000")), "{problem}");
    let day = app.get("/air_quality?format=csv&from=2020-01-02&to=2020-01-03").await;
    assert_eq!(day.expect(StatusCode::OK).body.lines().count(), 1 + 24 * 60);
    client.batch_execute("delete from air_quality where so2 = 0").await.expect("deleted");
    // Exactly 100,000 readings are allowed; the change takes a moment to reach the server.
    eventually(|| async {
        let all = app.get("/air_quality?format=csv").await;
        if all.status != 200 {
            return Err(all.body);
        }
        assert_eq!(all.body.lines().count(), 1 + 100_000);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_fresh_database_gets_the_synthetic_sample_once() {
    let database = Database::empty().await;
    let mut app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    let answer = app.get("/air_quality").await.expect(StatusCode::OK).json();
    let entities = answer["entities"].as_array().expect("a list");
    assert!(entities.len() >= 3);
    for entity in entities {
        assert!(entity["id"].as_str().is_some_and(|id| id.starts_with("synthetic_")), "{}", entity["id"]);
        assert_eq!(entity["values"].as_array().map(Vec::len), Some(7 * 24));
    }
    assert!(answer.to_string().contains("null"), "the sample has no missing value");
    let client = database.client().await;
    client.batch_execute("delete from air_quality").await.expect("deleted");
    app.stop().await;
    let app = TestApp::start_on(&database.conninfo(), &["--seed=true"]).await;
    assert_eq!(app.get("/air_quality").await.body, r#"{"cache":false,"entities":[]}"#);
}

#[tokio::test]
async fn the_real_readings_are_imported_and_listed_with_their_milliseconds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/environment_airq_measurand.csv");
    let Ok(real) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not on this machine; it is not part of the repository", path.display());
        return;
    };
    let app = TestApp::start().await;
    let (first, second) = (app.database.as_ref().expect("own database"), Database::empty().await);
    assert_eq!(import(first, &real), "960 readings imported\n");
    let exported = succeeded(program(&["export", "--resource", "air-quality"], first, ""));
    assert_eq!(import(&second, &exported), "960 readings imported\n");
    assert_eq!(succeeded(program(&["export", "--resource", "air-quality"], &second, "")), exported);
    // The rows equal the file's to the last digit, with the times in RFC 3339.
    let sorted = |csv: &str| {
        let mut lines: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let rewritten = |line: &str| format!("{}T{}Z{}", &line[..10], &line[11..23], &line[23..]);
    let expected: Vec<String> = sorted(&real).iter().map(|line| rewritten(line)).collect();
    assert_eq!(sorted(&exported), expected);
    assert_eq!(sorted(&app.get("/air_quality?format=csv").await.expect(StatusCode::OK).body), expected);
    let whole = app.get("/air_quality").await.expect(StatusCode::OK).json();
    let entities = whole["entities"].as_array().expect("a list");
    assert_eq!(entities.iter().map(|entity| entity["values"].as_array().map_or(0, Vec::len)).sum::<usize>(), 960);
    assert_eq!(entities.len(), 10);
}

#[tokio::test]
async fn readings_are_imported_as_spreadsheets_and_pandas_write_them() {
    let database = Database::migrated().await;
    let odd = "\u{feff}sep=;\r\n;TimeInstant;ID-Entity;SO2;NO2;CO;O3;PM10;PM2.5\r\n\
               0;2016-10-01 00:00:00;a;1,5;NA;;-0,25;NaN;7\r\n;;;;;;;;\r\n1;2016-10-01 00:15:00;a;1;2;3;4;5;6\r\n";
    let said = import(&database, odd);
    let expected = "2 readings imported\nsemicolons separate the cells\n\
                    1 column without a name, which counts the rows or is empty, was left out\n\
                    1 row without a value was left out\n2 words such as NA were read as null\n2 numbers have a decimal comma\n";
    assert_eq!(said, expected);
    let dated = import(&database, &format!("{HEADER}04.03.2017 00:15,a,1,,,,,\n05MAR2017:00:15:00,a,1,,,,,\n"));
    assert_eq!(dated, "2 readings imported\n2 dates were read in formats other than 2026-01-31\n");
    let row = "select so2, no2, co, o3, pm10, pm2_5 from air_quality order by measured_at limit 1";
    let row = database.client().await.query_one(row, &[]).await.expect("read");
    let values: Vec<Option<f64>> = (0..6).map(|index| row.get(index)).collect();
    assert_eq!(values, [Some(1.5), None, None, Some(-0.25), None, Some(7.0)]);
}

#[tokio::test]
async fn an_invalid_row_aborts_the_import_with_line_column_and_reason_and_stores_nothing() {
    let database = Database::migrated().await;
    let bad = |csv: &str| refused(&program(&["import", "--resource", "air-quality", "-"], &database, csv));
    let good = "2016-10-01 00:00:00,a,1,2,3,4,5,6\n";
    for (row, column) in [
        ("yesterday,b,1,2,3,4,5,6", "timestamp"),
        (",b,1,2,3,4,5,6", "timestamp"),
        ("2016-10-01 25:00:00,b,1,2,3,4,5,6", "timestamp"),
        ("2016-10-01 00:00:00,,1,2,3,4,5,6", "id_entity"),
        ("2016-10-01 00:00:00,=b,1,2,3,4,5,6", "id_entity"),
        ("2016-10-01 00:00:00,b,x,2,3,4,5,6", "so2"),
        ("2016-10-01 00:00:00,b,1,many,3,4,5,6", "no2"),
        ("2016-10-01 00:00:00,b,1,2,inf,4,5,6", "co"),
        ("2016-10-01 00:00:00,b,1,2,3,1e999,5,6", "o3"),
        ("2016-10-01 00:00:00,b,1,2,3,4,\"5,0,0\",6", "pm10"),
        ("2016-10-01 00:00:00,b,1,2,3,4,5,little", "pm2_5"),
    ] {
        let message = bad(&format!("{HEADER}{good}{row}\n"));
        assert!(message.contains(&format!("line 3, column {column}: must be")), "{row}: {message}");
    }
    assert!(bad("timestamp,id_entity\n").contains("missing column \"so2\""));
    assert!(bad("timestamp,station\n").contains("unknown column \"station\""));
    assert!(bad("timestamp,TimeInstant\n").contains("duplicate column"));
    assert!(bad(&format!("{HEADER}{good}2016-10-01 00:00:00,b\n")).contains("line 3: must have 8 cells"));
    // A duplicate of station and time.
    let twice = bad(&format!("{HEADER}{good}2016-10-01T02:00:00+02:00,a,1,2,3,4,5,6\n"));
    assert!(twice.contains("already exists"), "{twice}");
    let row = database.client().await.query_one("select count(*) from air_quality", &[]).await.expect("counted");
    assert_eq!(row.get::<_, i64>(0), 0);
    // Other column order, the other name of the time column, CRLF line ends and a byte order mark.
    let odd = "\u{feff}pm2_5,TimeInstant,ID_ENTITY,so2,no2,co,o3,pm10\r\n6,2016-10-01 00:00:00.5,a,1,,3,4,5\r\n";
    assert_eq!(import(&database, odd), "1 readings imported\n");
    let exported = succeeded(program(&["export", "--resource", "air-quality"], &database, ""));
    assert_eq!(exported, format!("{HEADER}2016-10-01T00:00:00.500Z,a,1,,3,4,5,6\n"));
}

#[tokio::test]
async fn station_names_may_use_any_script_and_spaces() {
    let app = TestApp::start().await;
    let database = app.database.as_ref().expect("own database");
    let names = ["Parque del Retiro", "Jaén: calle 1", "北京", "दिल्ली", "Львів-2", "a"];
    let rows: String = names.iter().map(|name| format!("2016-10-01,{name},1,,,,,\n")).collect();
    import(database, &format!("{HEADER}{rows}"));
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let ids = |answer: &Answer| -> Vec<String> {
        let entities = answer.expect(StatusCode::OK).json()["entities"].as_array().expect("a list").clone();
        entities.iter().map(|entity| entity["id"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(ids(&app.get("/v1/air-quality").await), sorted);
    for name in names {
        let request = app.request(Method::GET, "/v1/air-quality").query(&[("entity", name)]);
        assert_eq!(ids(&send(request).await), [name]);
    }
    let several = app.request(Method::GET, "/v1/air-quality").query(&[("entity", "北京, Parque del Retiro")]);
    assert_eq!(ids(&send(several).await), ["Parque del Retiro", "北京"]);
    // Exported CSV can be read by other CSV readers and by import.
    let exported = succeeded(program(&["export", "--resource", "air-quality"], database, ""));
    assert!(!exported.contains('"'), "{exported}");
    let again = Database::migrated().await;
    import(&again, &exported);
    for wrong in ["=1", "+1", "-a", "@a", " a\"", "\"a,b\"", "a;b", "\"a\tb\"", "\"a\"\"b\""] {
        refused(&program(
            &["import", "--resource", "air-quality", "-"],
            &again,
            &format!("{HEADER}2016-10-01,{wrong},1,,,,,\n"),
        ));
    }
}

#[tokio::test]
async fn a_database_with_the_old_name_rule_accepts_any_script_after_its_migration() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let old = "alter table air_quality drop constraint air_quality_id_entity;
        alter table air_quality add constraint air_quality_id_entity check (id_entity ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$');
        insert into air_quality (id_entity, measured_at) values ('a_B.c:d-1', now())";
    client.batch_execute(old).await.expect("as it was");
    client.batch_execute(include_str!("../../migrations/0010_station_names.sql")).await.expect("migrated");
    let insert = "insert into air_quality (id_entity, measured_at) values ($1, now())";
    for name in ["Parque del Retiro", "北京"] {
        client.execute(insert, &[&name]).await.expect("inserted");
    }
    for name in ["", "=1", "+1", "-1", "@1", " a", "a ", "a,b", "a\"b", "a\\b", "a\nb", &"a".repeat(101)] {
        let error = client.execute(insert, &[&name]).await.expect_err(name);
        let constraint = error.as_db_error().and_then(|error| error.constraint());
        assert_eq!(constraint, Some("air_quality_id_entity"), "{name}");
    }
}

#[tokio::test]
async fn the_sample_in_the_repository_equals_the_output_of_its_script() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let output = std::process::Command::new("python3").arg(folder.join("make_air_quality.py")).output();
    let Ok(output) = output else {
        println!("skipped: there is no python3 on this machine");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == std::fs::read(folder.join("air_quality.csv")).expect("it is there"));
}
