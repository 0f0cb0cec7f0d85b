//! Times mean the same wherever they are read: columns (one row, many, filters), steps' and air quality's parameters, and
//! import.

use std::fs;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Database, TestApp, send};
use crate::transfer::{program, refused, succeeded};

const THINGS: &str = "name = \"things\"\n[[column]]\nname = \"at\"\ntype = \"string\"\nformat = \"date-time\"\n";
const MEASURES: &str = "timestamp,id_entity,so2,no2,co,o3,pm10,pm2_5\n";

/// A time with an offset or zone, and its instant as stored in columns.
const NAMED: [(&str, &str); 12] = [
    ("2025-03-04T01:00:00Z", "2025-03-04T01:00:00.000000Z"),
    ("2025-03-04t01:00:00z", "2025-03-04T01:00:00.000000Z"),
    ("2025-03-04 02:00:00+01:00", "2025-03-04T01:00:00.000000Z"),
    ("2025-03-04 02:00:00+01", "2025-03-04T01:00:00.000000Z"),
    ("2025-03-04T02:00:00[Europe/Madrid]", "2025-03-04T01:00:00.000000Z"),
    ("2025-07-04T03:00:00[!Europe/Madrid]", "2025-07-04T01:00:00.000000Z"),
    ("2025-03-04T02:00:00+01:00[Europe/Madrid][u-ca=gregory]", "2025-03-04T01:00:00.000000Z"),
    ("2025-10-26T02:30:00+01:00[Europe/Madrid]", "2025-10-26T01:30:00.000000Z"),
    ("2025-03-04[Europe/Madrid]", "2025-03-03T23:00:00.000000Z"),
    ("2025-03-03T24:00:00Z", "2025-03-04T00:00:00.000000Z"),
    ("2025-03-04T01:00:00.123456789Z", "2025-03-04T01:00:00.123457Z"),
    ("2025-03-04T01:00:00.999999999Z", "2025-03-04T01:00:01.000000Z"),
];
/// A time without offset or zone: UTC in query parameters and in air-quality files.
const UNNAMED: [(&str, &str); 4] = [
    ("2025-03-04", "2025-03-04T00:00:00.000000Z"),
    ("2025-03-04 01:00:00", "2025-03-04T01:00:00.000000Z"),
    ("2025-03-04T01:00:00.5", "2025-03-04T01:00:00.500000Z"),
    ("2025-03-03 24:00:00", "2025-03-04T00:00:00.000000Z"),
];
/// Times that are refused everywhere, and the error message.
const WRONG: [(&str, &str); 12] = [
    ("2016-12-31T23:59:60Z", "second 60 is not supported"),
    ("2025-02-29T01:00:00Z", "no such day"),
    ("2025-03-04T24:00:01Z", "no such time of day"),
    ("2025-03-04T01:00:00.1234567891Z", "more than 9 decimals"),
    ("2025-03-04T01:00:00 01:00", "write %2B"),
    ("2025-03-04T02:00:00[Europe/Madird]", "no time zone \\\"Europe/Madird\\\""),
    ("2025-03-04T02:00:00Z[!Europe/Madird]", "no time zone"),
    ("2025-03-30T02:30:00[Europe/Madrid]", "does not exist in Europe/Madrid"),
    ("2025-10-26T02:30:00[Europe/Madrid]", "occurs twice in Europe/Madrid"),
    ("2025-03-04T02:00:00+02:00[Europe/Madrid]", "is not that of Europe/Madrid"),
    ("2025-03-04T02:00:00Z[!u-ca=hebrew]", "critical annotation"),
    ("2025-03-04T02:00:00+25:00", "no such offset"),
];

async fn service() -> (TestApp, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("things.toml"), THINGS).expect("written");
    let flag = format!("--resources-dir={}", folder.path().display());
    (TestApp::start_with(&[&flag]).await, folder)
}

async fn post(app: &TestApp, form: &str, body: String) -> Answer {
    let request = app.request(Method::POST, "/v1/things").header("content-type", form.to_owned());
    send(request.header("prefer", "return=representation").body(body)).await
}

async fn get_with(app: &TestApp, path: &str, name: &str, value: &str) -> Answer {
    send(app.request(Method::GET, path).query(&[(name, value)])).await
}

/// A body for each way to send a time.
fn bodies(text: &str) -> [(&'static str, String); 4] {
    [
        ("application/json", json!({"at": text}).to_string()),
        ("application/json", json!([{"at": text}]).to_string()),
        ("application/x-ndjson", json!({"at": text}).to_string()),
        ("text/csv", format!("at\n\"{text}\"\n")),
    ]
}

#[tokio::test]
async fn a_time_is_stored_as_its_instant_or_refused_with_a_specific_message() {
    let (app, _folder) = service().await;
    for (text, instant) in NAMED {
        for (form, body) in bodies(text) {
            let answer = post(&app, form, body).await;
            answer.expect(StatusCode::CREATED);
            let stored = if form == "text/csv" || !answer.body.starts_with('{') {
                answer.json()[0]["at"].clone()
            } else {
                answer.json()["at"].clone()
            };
            assert_eq!(stored, instant, "{text} as {form}");
        }
        let found = get_with(&app, "/v1/things?select=at", "at", &format!("eq.{text}")).await;
        let found: Vec<Value> = found.expect(StatusCode::OK).json().as_array().expect("an array").clone();
        assert!(found.len() >= 4 && found.iter().all(|row| row["at"] == instant), "{text}: {found:?}");
    }
    let unnamed = UNNAMED.map(|(text, _)| (text, "it has no offset from UTC"));
    for (text, words) in WRONG.into_iter().chain(unnamed) {
        for (form, body) in bodies(text) {
            let answer = post(&app, form, body).await;
            answer.expect_problem(422, "invalid-fields");
            assert!(answer.body.contains(words), "{text} as {form}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_time_in_a_query_means_the_same_for_every_resource() {
    let (app, _folder) = service().await;
    for (_, instant) in NAMED.iter().chain(&UNNAMED) {
        post(&app, "application/json", json!({"at": instant}).to_string()).await.expect(StatusCode::CREATED);
    }
    let import: String =
        NAMED.iter().chain(&UNNAMED).enumerate().fold(MEASURES.to_owned(), |file, (number, (_, instant))| {
            format!("{file}{instant},station-{number},1,,,,,\n")
        });
    let database = app.database.as_ref().expect("own database");
    succeeded(program(&["import", "--resource", "air-quality", "-"], database, &import));
    for (text, instant) in NAMED.iter().chain(&UNNAMED) {
        let found = get_with(&app, "/v1/things?select=at&limit=1", "at", &format!("eq.{text}")).await;
        assert_eq!(found.expect(StatusCode::OK).json()[0]["at"], *instant, "{text}");
        // The start is inclusive.
        let short = |at: &str| at.strip_suffix("000Z").map_or_else(|| at.to_owned(), |at| format!("{at}Z"));
        let readings = get_with(&app, "/v1/air-quality?format=csv", "from", text).await;
        let mut times: Vec<&str> =
            readings.expect(StatusCode::OK).body.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        times.sort_unstable();
        assert_eq!(times.first(), Some(&short(instant).as_str()), "{text}");
        for name in ["start_datetime", "end_datetime"] {
            get_with(&app, "/v1/steps", name, text).await.expect(StatusCode::OK);
        }
    }
    for (text, words) in WRONG {
        for (path, name, value) in [
            ("/v1/things", "at", format!("gte.{text}")),
            ("/v1/things", "or", format!("(at.in.(\"{text}\"))")),
            ("/v1/steps", "start_datetime", text.to_owned()),
            ("/v1/steps/durations", "end_datetime", text.to_owned()),
            ("/v1/air-quality", "from", text.to_owned()),
            ("/v1/air-quality", "to", text.to_owned()),
        ] {
            let answer = get_with(&app, path, name, &value).await;
            answer.expect_problem(400, "invalid-query");
            assert!(answer.body.contains(words), "{path}?{name}={value}: {}", answer.body);
        }
    }
    // A literal plus in a URL is decoded as a space.
    for path in ["/v1/things?at=gte.2025-03-04T02:00:00+01:00", "/v1/steps?start_datetime=2025-03-04T02:00:00+01:00"] {
        let answer = app.get(path).await;
        answer.expect_problem(400, "invalid-query");
        assert!(answer.body.contains("write %2B there"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn imported_readings_have_the_instants_of_their_times() {
    let database = Database::migrated().await;
    let import =
        |rows: &str| program(&["import", "--resource", "air-quality", "-"], &database, &format!("{MEASURES}{rows}"));
    let all: Vec<(&str, &str)> = NAMED.into_iter().chain(UNNAMED).collect();
    let rows: String =
        all.iter().enumerate().map(|(number, (text, _))| format!("{text},s{number:02},1,,,,,\n")).collect();
    succeeded(import(&rows));
    let client = database.client().await;
    let sql = "select to_char(measured_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from air_quality order by id_entity";
    let stored: Vec<String> =
        client.query(sql, &[]).await.expect("read").iter().map(|row| row.get::<_, String>(0)).collect();
    assert_eq!(stored, all.iter().map(|(_, instant)| *instant).collect::<Vec<_>>());
    for (text, words) in WRONG {
        let message = refused(&import(&format!("{text},s,1,,,,,\n")));
        assert!(message.contains("line 2, column timestamp: must be a time"), "{text}: {message}");
        assert!(message.contains(&words.replace("\\\"", "\"")), "{text}: {message}");
    }
}
