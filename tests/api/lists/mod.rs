//! Lists of passengers: conditions, orders, pages, counts, formats and statistics.

mod filters;
mod forms;
mod grammar;
mod pages;
mod statistics;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, send};

/// A server with `count` passengers that share values and of which some have no age.
async fn crowd(count: i32) -> TestApp {
    let app = TestApp::start().await;
    insert(&app, 0, count).await;
    app
}

async fn insert(app: &TestApp, from: i32, to: i32) {
    let client = app.database.as_ref().expect("own database").client().await;
    let sql = "insert into passengers select gen_random_uuid(), n % 2 = 0, 1 + n % 3, \
         (array['Ångström, Mr. Per', 'de Brun, Mrs. \"A\"', 'Smith, Dr. 100%', 'smith, Mr. a_b'])[1 + n % 4] || n % 7, \
         (array['male', 'female'])[1 + n / 2 % 2], case when n % 5 > 0 then n % 11 + 0.5 end, n % 4, n % 2, n % 13 * 7.25 \
         from generate_series($1, $2 - 1) n";
    client.execute(sql, &[&from, &to]).await.expect("inserted");
}

/// Sends a GET request with percent-encoded parameters.
async fn get(app: &TestApp, path: &str, parameters: &[(&str, &str)]) -> Answer {
    send(app.request(Method::GET, path).query(parameters)).await
}

#[track_caller]
fn rows(answer: &Answer) -> Vec<Value> {
    let list = answer.expect(StatusCode::OK).json();
    list.as_array().unwrap_or_else(|| panic!("no array: {}", answer.body)).clone()
}

fn uuids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["uuid"].as_str().expect("a uuid").to_owned()).collect()
}

/// The parameters of a problem and the error of each.
#[track_caller]
fn faults(answer: &Answer) -> Vec<(String, String)> {
    let problem = answer.expect_problem(400, "invalid-query");
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", answer.body));
    let text = |error: &Value, key: &str| error[key].as_str().expect("a text").to_owned();
    errors.iter().map(|error| (text(error, "parameter"), text(error, "detail"))).collect()
}

/// The path and query of a neighbouring page.
fn link(answer: &Answer, relation: &str) -> Option<String> {
    let links = answer.headers.get("link")?.to_str().expect("printable");
    let link = links.split(", ").find(|link| link.ends_with(&format!("rel=\"{relation}\"")))?;
    Some(link.split_once('<').expect("a target").1.split_once('>').expect("a target").0.to_owned())
}

#[tokio::test]
async fn a_page_has_a_hundred_passengers_and_the_short_url_has_all() {
    let app = crowd(150).await;
    assert_eq!(rows(&app.get("/v1/passengers").await).len(), 100);
    assert_eq!(rows(&app.get("/passengerlist").await).len(), 150);
    assert_eq!(rows(&app.get("/passengerlist?limit=3").await).len(), 3);
    assert_eq!(rows(&app.get("/v1/passengers?limit=1000").await).len(), 150);
    assert_eq!(app.get("/v1/passengers?age=gt.500").await.json(), json!([]));
}
