//! The service with random descriptions: values are stored, listed, exported and imported as sent; invalid values are refused
//! with their field; filters, orders and pages match a model in memory.

mod conditions;

use std::cmp::Ordering;
use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use pycrudapi::db::copy::{self, Input};
use pycrudapi::resource::column::Column;
use pycrudapi::resource::definition::Resource;
use pycrudapi::resource::generate::generate;
use pycrudapi::resource::kind::Kind;
use pycrudapi::resource::registry;
use pycrudapi::resource::value::Value;
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::harness::{Database, TestApp, send};

#[path = "../support/descriptions.rs"]
pub mod random;

const CASES: u32 = 10;
const ROWS: u64 = 30;

/// A row as returned by the service: each member with its raw text.
type Row = Vec<(String, Box<RawValue>)>;

/// A service with an additional resource.
struct Service {
    app: TestApp,
    resource: &'static Resource,
    /// The rows as CSV, with keys.
    csv: Vec<u8>,
    _folder: tempfile::TempDir,
}

/// A service with the resource of this description and random rows of it.
async fn service(text: &str, seed: u64) -> Service {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("things.toml"), text).expect("written");
    let resources = registry::load(Some(folder.path()), None).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let resource = resources.iter().find(|resource| resource.name == "things").expect("it is there");
    let flag = format!("--resources-dir={}", folder.path().display());
    let app = TestApp::start_with(&[&flag]).await;
    let mut csv = Vec::new();
    generate(resource, &mut csv, ROWS, seed).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Service { app, resource, csv, _folder: folder }
}

/// The members of an object in order, as raw text.
fn members(text: &str) -> Row {
    struct Members(Row);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;

                fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    formatter.write_str("an object")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some(entry) = map.next_entry::<String, Box<RawValue>>()? {
                        members.push(entry);
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Members>(text).unwrap_or_else(|error| panic!("{error}: {text}")).0
}

fn value(resource: &'static Resource, row: &Row, column: &'static Column) -> Value<'static> {
    let (_, raw) = row.iter().find(|(name, _)| name == column.name).expect("every member is there");
    let value = column.read_json(raw.get()).unwrap_or_else(|| panic!("{}: {}", column.name, raw.get()));
    debug_assert!(resource.columns.iter().any(|known| std::ptr::eq(known, column)));
    value.into_owned()
}

fn compare(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.units().cmp(&b.units()),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::DateTime(a), Value::DateTime(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        _ => panic!("{a:?} {b:?}"),
    }
}

/// Whether a comparison holds for two values with this ordering.
fn comparison_holds(comparison: &str, ordering: Ordering) -> bool {
    match comparison {
        "eq" => ordering.is_eq(),
        "neq" => ordering.is_ne(),
        "gt" => ordering.is_gt(),
        "gte" => ordering.is_ge(),
        "lt" => ordering.is_lt(),
        _ => ordering.is_le(),
    }
}

/// The order of two rows by a column and the key.
fn in_order(resource: &'static Resource, column: &'static Column, descending: bool, a: &Row, b: &Row) -> Ordering {
    let (left, right) = (value(resource, a, column), value(resource, b, column));
    let by_column = match (left.is_null(), right.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater, // nulls sort as the greatest value
        (false, true) => Ordering::Less,
        (false, false) => compare(&left, &right),
    };
    let key = &resource.columns[0];
    let ordering = by_column.then_with(|| compare(&value(resource, a, key), &value(resource, b, key)));
    if descending { ordering.reverse() } else { ordering }
}

async fn list(app: &TestApp, path: &str) -> (Vec<Row>, Option<String>) {
    let answer = app.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    let rows: Vec<Box<RawValue>> = serde_json::from_str(&answer.body).expect("an array");
    let link = answer.headers.get("link").map_or("", |link| link.to_str().expect("ASCII"));
    let next = link
        .split(", ")
        .find(|link| link.ends_with("rel=\"next\""))
        .map(|link| link.trim_start_matches('<').split('>').next().expect("a URL").to_owned());
    (rows.iter().map(|row| members(row.get())).collect(), next)
}

fn keys(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row[0].1.get().trim_matches('"').to_owned()).collect()
}

fn texts(rows: &[Row]) -> Vec<Vec<(String, String)>> {
    rows.iter().map(|row| row.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect()).collect()
}

/// Imports the rows and creates them again in each format: everything is stored as sent.
async fn round_trips(service: &Service) {
    let Service { app, resource, csv, .. } = service;
    let database = app.database.as_ref().expect("own database");
    let mut client = database.client().await;
    let input = Input::of(std::io::Cursor::new(csv.clone()));
    let imported = copy::import(*resource, &mut client, input, false, |_| ()).await.expect("imported");
    assert_eq!((imported.rows, imported.notes), (ROWS, Vec::new()));
    let mut exported = Vec::new();
    copy::export(*resource, &client, &mut exported).await.expect("exported");
    let (rows, _) = list(app, "/v1/things?limit=1000").await;
    assert_eq!(rows.len() as u64, ROWS);
    // The export can be imported again and exports identically.
    let again = Database::migrated().await;
    let mut other = again.client().await;
    for statement in pycrudapi::resource::schema::ddl(resource) {
        other.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
    let input = Input::of(std::io::Cursor::new(exported.clone()));
    copy::import(*resource, &mut other, input, false, |_| ()).await.expect("imported again");
    let mut twice = Vec::new();
    copy::export(*resource, &other, &mut twice).await.expect("exported again");
    assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&exported));
    // One by one, and all of them as NDJSON and JSON: the same rows apart from their keys.
    let without_key = |row: &Row| -> String {
        let members: Vec<String> = row[1..].iter().map(|(name, raw)| format!("{name:?}:{}", raw.get())).collect();
        format!("{{{}}}", members.join(","))
    };
    let bodies: Vec<String> = rows.iter().map(without_key).collect();
    for body in bodies.iter().take(5) {
        let request =
            app.request(Method::POST, "/v1/things").header("content-type", "application/json").body(body.clone());
        let answer = send(request).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{body}: {}", answer.body);
        assert_eq!(without_key(&members(&answer.body)), *body);
    }
    for (form, body) in
        [("application/x-ndjson", bodies.join("\n")), ("application/json", format!("[{}]", bodies.join(",")))]
    {
        let request = app
            .request(Method::POST, "/v1/things")
            .header("content-type", form)
            .header("prefer", "return=representation");
        let answer = send(request.header("accept", "application/json").body(body.clone())).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{body}: {}", answer.body);
        let stored: Vec<Box<RawValue>> = serde_json::from_str(&answer.body).expect("an array");
        let stored: Vec<String> = stored.iter().map(|row| without_key(&members(row.get()))).collect();
        assert_eq!(stored, bodies);
    }
}

/// An invalid value of each column is refused with its pointer, and nothing is stored.
async fn refusals(service: &Service) {
    let Service { app, resource, .. } = service;
    let (rows, _) = list(app, "/v1/things?limit=1").await;
    let good: Map<String, Json> = serde_json::from_str(&format!(
        "{{{}}}",
        rows[0][1..].iter().map(|(name, raw)| format!("{name:?}:{}", raw.get())).collect::<Vec<_>>().join(",")
    ))
    .expect("an object");
    let before = count(app).await;
    for column in &resource.columns[1..] {
        let wrong: Vec<Json> = vec![
            json!({}),
            json!([]),
            match column.kind {
                Kind::Boolean => json!("yes"),
                Kind::Integer { .. } => json!(1.5),
                Kind::Number { .. } | Kind::Decimal { .. } => json!("many"),
                _ => json!(false),
            },
        ];
        for wrong in wrong.into_iter().chain((!column.nullable).then_some(Json::Null)) {
            let mut body = good.clone();
            body.insert(column.name.to_owned(), wrong.clone());
            let answer = send(app.request(Method::POST, "/v1/things").json(&body)).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong} {}", answer.body);
            let errors = &answer.json()["errors"];
            assert_eq!(errors[0]["pointer"], format!("/{}", column.name), "{}", answer.body);
            assert_eq!(errors.as_array().map(Vec::len), Some(1), "{}", answer.body);
        }
    }
    assert_eq!(count(app).await, before);
}

async fn count(app: &TestApp) -> String {
    let answer = send(app.request(Method::GET, "/v1/things?limit=1").header("prefer", "count=exact")).await;
    answer.header("content-range").to_owned()
}

/// Comparisons with a stored value, in a random order and in small pages, forwards.
async fn lists(service: &Service, picks: &[(Index, Index, Index, bool)]) {
    let Service { app, resource, .. } = service;
    let (all, _) = list(app, "/v1/things?limit=1000").await;
    for (column, row, operator, descending) in picks {
        let column: &'static Column = &resource.columns[column.index(resource.columns.len())];
        let operand = value(resource, row.get(&all), column);
        let operators: &[&str] = match &operand {
            Value::Null => &["is.null"],
            Value::Boolean(_) => &["eq", "neq"],
            _ => &["eq", "neq", "gt", "gte", "lt", "lte"],
        };
        let operator = operators[operator.index(operators.len())];
        let fits = |row: &Row| {
            let value = value(resource, row, column);
            if operator == "is.null" || value.is_null() {
                return operator == "is.null" && value.is_null();
            }
            comparison_holds(operator, compare(&value, &operand))
        };
        let mut expected: Vec<Row> = all.iter().filter(|row| fits(row)).cloned().collect();
        expected.sort_by(|a, b| in_order(resource, column, *descending, a, b));
        let condition = if operator == "is.null" { operator.to_owned() } else { format!("{operator}.{operand}") };
        let direction = if *descending { ".desc" } else { "" };
        let query = reqwest::Url::parse_with_params(
            "http://x/v1/things",
            [(column.name, condition.as_str()), ("order", &format!("{}{direction}", column.name)), ("limit", "7")],
        )
        .expect("a URL");
        let mut path = Some(format!("/v1/things?{}", query.query().expect("a query")));
        let mut read = Vec::new();
        while let Some(page) = path {
            let (rows, next) = list(app, &page).await;
            read.extend(rows);
            path = next;
        }
        assert_eq!(keys(&read), keys(&expected), "{} {condition} {direction}", column.name);
        assert_eq!(texts(&read), texts(&expected));
    }
}

#[tokio::test]
async fn random_descriptions_are_served_correctly() {
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let picks = prop::collection::vec(any::<(Index, Index, Index, bool)>(), 12);
    let filters = prop::collection::vec((conditions::sketch(), conditions::style()), 25);
    let cases = (random::description("things"), any::<u64>(), picks, filters);
    for _ in 0..CASES {
        let (text, seed, picks, filters) = cases.new_tree(&mut runner).expect("a case").current();
        println!("{text}"); // shown when the case fails
        let mut service = service(&text, seed).await;
        round_trips(&service).await;
        refusals(&service).await;
        lists(&service, &picks).await;
        conditions::hold(&service, &filters).await;
        // The other resource is unchanged.
        assert_eq!(service.app.get("/v1/passengers").await.body, "[]");
        service.app.stop().await;
    }
}
