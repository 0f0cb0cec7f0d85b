//! CSV with invalid quoting is refused as a whole, by `POST` and `import` alike, in any column and with any line ends.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Answer, Database, TestApp, send};
use crate::transfer::{program, refused, succeeded};

const COLUMNS: [&str; 8] =
    ["survived", "passengerClass", "name", "sex", "age", "siblingsOrSpousesAboard", "parentsOrChildrenAboard", "fare"];
const ROW: [&str; 8] = ["true", "1", "Good", "male", "22", "0", "0", "7.25"];
const LINE_ENDS: [&str; 3] = ["\n", "\r\n", "\r"];
/// A way to quote a value incorrectly, what follows two rows later, and the error message.
type Wrong = (fn(&str) -> String, &'static str, &'static str);
const FAULTS: [Wrong; 4] = [
    (|value| format!("\"{value}"), "", "has an opening quote that is never closed"),
    (|value| format!("\"{value}"), "\"", "has text after its closing quote"),
    (|value| format!("\"{value}\" Jr."), "", "has text after its closing quote"),
    (|value| format!("{value} \"Jr.\""), "", "has a quote inside an unquoted value"),
];

/// A header, a valid row, a blank line, a row with an error in one column, and two valid rows after it.
fn table(columns: &[&str], row: &[&str], at: usize, fault: &Wrong, end: &str) -> String {
    let (break_value, later, _) = fault;
    let mut bad: Vec<String> = row.iter().map(|value| (*value).to_owned()).collect();
    bad[at] = break_value(row[at]);
    let mut last = row.join(",");
    last.insert_str(0, later);
    [columns.join(","), row.join(","), String::new(), bad.join(","), row.join(","), last, String::new()].join(end)
}

async fn post(app: &TestApp, body: String) -> Answer {
    send(app.request(Method::POST, "/v1/passengers").header("content-type", "text/csv").body(body)).await
}

/// Line, field and detail of the only error.
#[track_caller]
fn fault(answer: &Answer) -> (u64, String, String) {
    let problem = answer.expect_problem(422, "invalid-fields");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{}", answer.body);
    let text = |key: &str| problem["errors"][0][key].as_str().expect("a text").to_owned();
    (problem["errors"][0]["line"].as_u64().expect("a line"), text("field"), text("detail"))
}

#[tokio::test]
async fn invalid_quoting_in_any_column_answers_422_with_line_and_field_and_stores_nothing() {
    let app = TestApp::start().await;
    for end in LINE_ENDS {
        for (at, column) in COLUMNS.iter().enumerate() {
            for wrong in &FAULTS {
                let body = table(&COLUMNS, &ROW, at, wrong, end);
                let (line, field, detail) = fault(&post(&app, body.clone()).await);
                assert_eq!((line, field.as_str()), (4, *column), "{body:?}: {detail}");
                assert!(detail.starts_with(wrong.2), "{body:?}: {detail}");
            }
        }
    }
    assert_eq!(app.get("/passengerlist").await.body, "[]");
}

#[tokio::test]
async fn invalid_quoting_in_the_header_is_reported_by_column_number() {
    let app = TestApp::start().await;
    for (end, wrong) in LINE_ENDS.iter().zip(&FAULTS) {
        let mut columns = COLUMNS.map(str::to_owned);
        columns[2] = wrong.0("name");
        let body = format!("{end}{}{end}{}{end}{}x", columns.join(","), ROW.join(","), wrong.1);
        let (line, field, detail) = fault(&post(&app, body.clone()).await);
        assert_eq!((line, field.as_str()), (2, ""), "{body:?}: {detail}");
        assert!(detail.starts_with(&format!("column 3 {}", wrong.2)), "{body:?}: {detail}");
    }
}

#[tokio::test]
async fn invalid_quoting_after_many_rows_stores_none_of_them() {
    let app = TestApp::start().await;
    let rows = format!("{}\n", ROW.join(",")).repeat(50_000);
    for (last, line) in [("true,1,\"A,male,22,0,0,1\n", 50_002), ("true,1,\"A\"B,male,22,0,0,1\n", 50_002)] {
        let body = format!("{}\n{rows}{last}{rows}", COLUMNS.join(","));
        let (found, field, detail) = fault(&post(&app, body).await);
        assert_eq!((found, field.as_str()), (line, "name"), "{detail}");
    }
    assert_eq!(app.get("/passengerlist").await.body, "[]");
}

#[tokio::test]
async fn valid_quoting_is_accepted_in_every_column_and_around_line_ends() {
    let app = TestApp::start().await;
    for end in LINE_ENDS {
        let name = format!("Two \"\"quotes\"\", a comma{end}and a line end");
        let body = format!(
            "\u{feff}\"{}\"{end}{end}\"true\",\"1\",\"{name}\",\"male\",\"\",\"0\",\"0\",\"1\"",
            COLUMNS.join("\",\"")
        );
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", "text/csv");
        let answer = send(request.header("prefer", "return=representation").body(body)).await;
        let stored = answer.expect(StatusCode::CREATED).json();
        assert_eq!(stored[0]["name"], json!(name.replace("\"\"", "\"")));
    }
}

#[tokio::test]
async fn import_refuses_the_same_with_line_and_column_and_stores_nothing() {
    let database = Database::migrated().await;
    for (index, wrong) in FAULTS.iter().enumerate() {
        let end = LINE_ENDS[index % LINE_ENDS.len()];
        let message = refused(&program(&["import", "-"], &database, &table(&COLUMNS, &ROW, 2, wrong, end)));
        assert!(message.contains(&format!("line 4, column name: {}", wrong.2)), "{message}");
        let readings = ["timestamp", "id_entity", "so2", "no2", "co", "o3", "pm10", "pm2_5"];
        let reading = ["2016-10-01T00:00:00Z", "x", "1", "", "", "", "", ""];
        let text = table(&readings, &reading, 1, wrong, end);
        let message = refused(&program(&["import", "--resource", "air-quality", "-"], &database, &text));
        assert!(message.contains(&format!("line 4, column id_entity: {}", wrong.2)), "{message}");
    }
    let open = format!("{}\ntrue,1,\"{}", COLUMNS.join(","), "true,1,A,male,22,0,0,1\n".repeat(10_000));
    let message = refused(&program(&["import", "-"], &database, &open));
    assert!(message.contains("line 2, column name: has an opening quote that is not closed within"), "{message}");
    let header = format!("\n{}\"\n{}\n", COLUMNS.join(","), ROW.join(","));
    let message = refused(&program(&["import", "-"], &database, &header));
    assert!(message.contains("line 2, column 8: has a quote inside an unquoted value"), "{message}");
    let row = database.client().await.query_one("select count(*) from passengers", &[]).await.expect("counted");
    assert_eq!(row.get::<_, i64>(0), 0);
    let empty = program(&["import", "--allow-empty", "-"], &database, &COLUMNS.join(","));
    assert_eq!(succeeded(empty), "0 passengers imported\n");
}
