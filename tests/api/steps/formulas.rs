//! No cell of a CSV of steps is interpreted as a formula by a spreadsheet. Passengers' CSV is data that import reads back, so
//! it is never altered; a station's name cannot begin like a formula.

use pycrudapi::air_quality::model::check_entity;
use reqwest::{Method, StatusCode};

use crate::harness::{TestApp, passenger_with, send};

/// First characters of formulas in spreadsheets (OWASP, "CSV Injection"), including full-width forms.
const DANGEROUS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
/// Texts that are not interpreted as formulas.
const HARMLESS: [&str; 6] = ["a=1", "1+1", "'=1", " =1", "ー1", "≠1"];

/// The cells of one column.
fn column(csv: &str, name: &str) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let index = reader.headers().expect("a header").iter().position(|column| column == name).expect(name);
    reader.records().map(|record| record.expect("valid CSV")[index].to_owned()).collect()
}

#[tokio::test]
async fn every_dangerous_first_character_is_escaped_in_every_text_column_of_every_list() {
    let app = TestApp::start().await;
    let dangerous = DANGEROUS.map(|first| format!("{first}SUM(A1)"));
    let texts: Vec<&str> = dangerous.iter().map(String::as_str).chain(HARMLESS).collect();
    for text in &texts {
        let fields = [("component", text), ("version", text), ("owner", text), ("status", text)];
        let recorded = send(app.request(Method::POST, "/v1/steps").form(&fields)).await;
        recorded.expect(StatusCode::CREATED);
    }
    let mut expected: Vec<String> = dangerous.iter().map(|text| format!("'{text}")).collect();
    expected.extend(HARMLESS.map(str::to_owned));
    expected.sort();
    let columns = ["component", "version", "owner", "status"];
    for (path, columns) in [
        ("/v1/steps", &columns[..]),
        ("/v1/steps?limit=1000", &columns),
        ("/v1/steps/durations?format=csv", &columns),
        ("/v1/steps/durations?format=csv&limit=1000", &columns),
        ("/v1/steps/durations?format=csv&summary=true", &["status"]),
    ] {
        let answer = app.get(path).await;
        for name in columns {
            let mut cells = column(&answer.expect(StatusCode::OK).body, name);
            cells.sort();
            assert_eq!(cells, expected, "{path}: {name}");
        }
    }
    // JSON is not altered.
    let listed = app.get("/v1/steps?format=json").await.json();
    let mut owners: Vec<&str> =
        listed["steps"].as_array().expect("steps").iter().map(|step| step["owner"].as_str().expect("a text")).collect();
    let mut sent = texts.clone();
    owners.sort_unstable();
    sent.sort_unstable();
    assert_eq!(owners, sent);
}

#[test]
fn no_station_name_begins_like_a_formula() {
    assert!(check_entity("SUM").is_some());
    for first in DANGEROUS {
        assert!(check_entity(&format!("{first}SUM")).is_none(), "{first:?}");
    }
}

#[tokio::test]
async fn names_of_passengers_are_unchanged_in_csv() {
    let app = TestApp::start().await;
    let names = DANGEROUS.map(|first| format!("{first}SUM(A1)"));
    for name in &names {
        app.create(&passenger_with("name", name.as_str())).await;
    }
    let answer = send(app.request(Method::GET, "/passengerlist").header("accept", "text/csv")).await;
    assert_eq!(column(&answer.expect(StatusCode::OK).body, "name"), names);
}
