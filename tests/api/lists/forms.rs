//! The formats of a list: JSON, CSV and NDJSON, complete or paged.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{crowd, rows};
use crate::harness::{Answer, TestApp, send};

async fn accept(app: &TestApp, path: &str, accept: &str) -> Answer {
    send(app.request(Method::GET, path).header("accept", accept)).await
}

#[tokio::test]
async fn every_format_has_the_same_rows() {
    let app = crowd(40).await;
    for path in ["/v1/passengers?limit=25&order=age", "/passengerlist"] {
        let json = accept(&app, path, "application/json").await;
        assert_eq!(json.expect(StatusCode::OK).header("vary"), "accept");
        let lines = accept(&app, path, "application/x-ndjson").await;
        assert_eq!(lines.expect(StatusCode::OK).header("content-type"), "application/x-ndjson");
        let each: Vec<Value> = lines.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(each, rows(&json));
        let table = accept(&app, path, "text/csv").await;
        assert!(table.expect(StatusCode::OK).header("content-type").starts_with("text/csv;"));
        let mut reader = csv::Reader::from_reader(table.body.as_bytes());
        let header = reader.headers().expect("a header").clone();
        for (record, row) in reader.records().map(|record| record.expect("valid CSV")).zip(&each) {
            for (name, cell) in header.iter().zip(&record) {
                let value = match &row[name] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string().trim_end_matches(".0").to_owned(),
                };
                assert_eq!(cell, value, "{name}");
            }
        }
        assert_eq!(table.body.lines().count(), each.len() + 1);
        let link = lines.header("link");
        assert_eq!(
            (link.contains("rel=\"next\""), link.contains("rel=\"canonical\"")),
            match path {
                "/passengerlist" => (false, true),
                _ => (true, false),
            }
        );
    }
}

#[tokio::test]
async fn csv_has_the_header_and_rows_of_an_export() {
    let app = crowd(40).await;
    let table = accept(&app, "/passengerlist", "text/csv").await;
    let mut output = Vec::new();
    let client = app.database.as_ref().expect("own database").client().await;
    pycrudapi::db::copy::export(crate::harness::resources()[0], &client, &mut output).await.expect("exported");
    assert_eq!(table.body, String::from_utf8(output).expect("UTF-8"));
}

#[tokio::test]
async fn only_the_selected_columns_are_returned_in_their_order() {
    let app = crowd(2).await;
    let path = "/v1/passengers?select=fare,name,age&limit=1";
    let json = app.get(path).await;
    let row = &rows(&json)[0];
    assert_eq!(json.body, format!(r#"[{{"fare":{},"name":{},"age":{}}}]"#, row["fare"], row["name"], row["age"]));
    let table = accept(&app, path, "text/csv").await;
    assert_eq!(table.body.lines().next(), Some("fare,name,age"));
    let lines = accept(&app, path, "application/x-ndjson").await;
    assert!(lines.body.starts_with("{\"fare\":") && lines.body.ends_with("}\n"));
}

#[tokio::test]
async fn an_unsupported_format_answers_406_with_the_supported_ones() {
    let app = crowd(1).await;
    for path in ["/v1/passengers", "/passengerlist"] {
        let problem = accept(&app, path, "application/xml").await.expect_problem(406, "not-acceptable");
        let detail = problem["detail"].as_str().expect("a text");
        for offered in ["application/json", "text/csv", "application/x-ndjson"] {
            assert!(detail.contains(offered), "{detail}");
        }
    }
}

#[tokio::test]
async fn an_empty_list_keeps_its_format() {
    let app = crowd(0).await;
    assert_eq!(accept(&app, "/passengerlist", "application/json").await.body, "[]");
    assert_eq!(accept(&app, "/passengerlist", "application/x-ndjson").await.body, "");
    assert_eq!(accept(&app, "/v1/passengers?select=name", "text/csv").await.body, "name\n");
}

#[tokio::test]
async fn concurrent_lists_in_other_formats_or_lengths_are_kept_apart() {
    let app = crowd(150).await;
    let mut asked = Vec::new();
    for path in ["/passengerlist", "/v1/passengers", "/v1/passengers?limit=3", "/passengerlist?limit=3"] {
        for form in ["application/json", "text/csv", "application/x-ndjson"] {
            asked.push((path, form, accept(&app, path, form).await));
        }
    }
    for _ in 0..5 {
        let together = join_all((0..4).flat_map(|_| &asked).map(|(path, form, _)| accept(&app, path, form))).await;
        for (answer, (path, form, alone)) in together.iter().zip(asked.iter().cycle()) {
            assert_eq!(answer.expect(StatusCode::OK).body, alone.body, "{path} as {form}");
            assert_eq!(answer.header("content-type"), alone.header("content-type"), "{path} as {form}");
            assert_eq!(answer.headers.get("link"), alone.headers.get("link"), "{path} as {form}");
        }
    }
}

#[tokio::test]
async fn the_object_format_requires_exactly_one_row() {
    const OBJECT: &str = "application/vnd.pgrst.object+json";
    let app = crowd(5).await;
    let all = rows(&app.get("/passengerlist?order=name").await);
    let uuid = all[3]["uuid"].as_str().expect("a uuid");
    for (query, expected) in [(format!("uuid=eq.{uuid}"), &all[3]), ("order=name&limit=1".to_owned(), &all[0])] {
        for path in ["/v1/passengers", "/passengerlist"] {
            let answer = accept(&app, &format!("{path}?{query}"), OBJECT).await;
            assert_eq!(answer.expect(StatusCode::OK).header("content-type"), OBJECT);
            assert_eq!(&answer.json(), expected, "{query}");
        }
    }
    let one = accept(&app, &format!("/v1/passengers?uuid=eq.{uuid}&select=name"), OBJECT).await;
    assert_eq!(one.body, format!("{{\"name\":{}}}", all[3]["name"]));
    for (query, rows) in
        [("age=lt.0", "no row"), ("limit=0", "no row"), ("", "more than one row"), ("limit=2", "more than one row")]
    {
        for path in ["/v1/passengers", "/passengerlist"] {
            let answer = accept(&app, &format!("{path}?{query}"), OBJECT).await;
            let problem = answer.expect_problem(406, "not-acceptable");
            assert!(problem["detail"].as_str().expect("a text").contains(rows), "{query}: {problem}");
        }
    }
    // The same query in another format is kept apart, and a wildcard does not select the object format.
    let both = ["application/json", OBJECT, "*/*"].map(|form| accept(&app, "/v1/passengers?limit=2", form));
    let statuses: Vec<_> = join_all(both).await.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [200, 406, 200]);
}
