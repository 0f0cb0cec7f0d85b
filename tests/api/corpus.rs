//! The input corpus, over HTTP and by `import`: each input yields the expected rows and notes, or the expected error.

use std::fs;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Map, Value};

use crate::harness::{Database, TestApp, send};
use crate::transfer::{program_fed, refused, succeeded};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// An input and its expected result.
struct Case {
    spec: Value,
    bytes: Vec<u8>,
}

impl Case {
    fn all() -> Vec<Self> {
        let text = fs::read_to_string(folder().join("cases.json")).expect("the cases are there");
        let specs: Vec<Value> = serde_json::from_str(&text).expect("the cases are JSON");
        let mut files: Vec<PathBuf> = fs::read_dir(folder().join("inputs"))
            .expect("a folder")
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        let listed: Vec<PathBuf> =
            specs.iter().map(|spec| folder().join("inputs").join(text_of(spec, "file"))).collect();
        assert_eq!(listed, files, "each input must have a case");
        let read = |spec: Value| {
            let bytes = fs::read(folder().join("inputs").join(text_of(&spec, "file"))).expect("the input is there");
            Self { spec, bytes }
        };
        specs.into_iter().map(read).collect()
    }

    fn name(&self) -> &str {
        text_of(&self.spec, "file")
    }

    fn resource(&self) -> &str {
        self.spec["resource"].as_str().unwrap_or("specimens")
    }

    fn is_lenient(&self) -> bool {
        self.spec["lenient"] == true
    }

    fn notes(&self) -> Vec<&str> {
        let notes = self.spec["notes"].as_array().expect("notes");
        notes.iter().map(|note| note.as_str().expect("a text")).collect()
    }

    /// Compares the stored rows with the expected ones; a column that is not listed is null.
    fn check_rows(&self, stored: &[Value]) {
        let expected = self.spec["rows"].as_array().expect("rows");
        assert_eq!(stored.len(), expected.len(), "{}: {stored:?}", self.name());
        for (row, expected) in stored.iter().zip(expected) {
            let mut row: Map<String, Value> = row.as_object().expect("a row").clone();
            row.remove("uuid");
            for (name, value) in row {
                let wanted = &expected[&name];
                let is_same = match (value.as_f64(), wanted.as_f64()) {
                    (Some(value), Some(wanted)) => value.to_bits() == wanted.to_bits(),
                    _ => value == *wanted,
                };
                assert!(is_same, "{}: {name} is {value}, expected {wanted}", self.name());
            }
        }
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is not a string in {value}"))
}

async fn rows(app: &TestApp, resource: &str) -> Vec<Value> {
    let list = app.get(&format!("/v1/{resource}?order=uuid&limit=1000")).await;
    list.json().as_array().expect("a list").clone()
}

#[tokio::test]
async fn each_input_yields_its_rows_or_its_error_over_http() {
    let app = TestApp::start_with(&[&format!("--resources-dir={}", folder().display())]).await;
    for case in Case::all() {
        let before = rows(&app, case.resource()).await.len();
        let charset = case.spec["encoding"].as_str().map(|label| format!("; charset={label}")).unwrap_or_default();
        let mut request = app.request(Method::POST, &format!("/v1/{}", case.resource()));
        request = request.header("content-type", format!("text/csv{charset}"));
        if case.is_lenient() {
            request = request.header("prefer", "handling=lenient");
        }
        let answer = send(request.body(case.bytes.clone())).await;
        let stored = rows(&app, case.resource()).await.split_off(before);
        if case.spec["error"].is_null() {
            assert_eq!(answer.status, 201, "{}: {}", case.name(), answer.body);
            let applied = answer.headers.get("preference-applied").map(|value| value.to_str().expect("ASCII"));
            assert_eq!(applied, case.is_lenient().then_some("handling=lenient"), "{}", case.name());
            case.check_rows(&stored);
            let said = answer.json();
            assert_eq!(said["count"], stored.len(), "{}", case.name());
            let notes: Vec<&str> = said["notes"]
                .as_array()
                .map_or(Vec::new(), |notes| notes.iter().map(|note| note.as_str().expect("a text")).collect());
            assert_eq!(notes, case.notes(), "{}", case.name());
        } else {
            let problem = answer.expect_problem(422, "invalid-fields");
            let (error, expected) = (&problem["errors"][0], &case.spec["error"]);
            assert_eq!(error["line"], expected["line"], "{}: {error}", case.name());
            assert_eq!(error["field"], expected["field"], "{}: {error}", case.name());
            assert!(text_of(error, "detail").contains(text_of(expected, "detail")), "{}: {error}", case.name());
            assert!(stored.is_empty(), "{}: rows were stored", case.name());
        }
    }
}

#[tokio::test]
async fn each_input_yields_the_same_by_import() {
    let database = Database::migrated().await;
    let resources = format!("--resources-dir={}", folder().display());
    let app = TestApp::start_on(&database.conninfo(), &[&resources]).await;
    for case in Case::all() {
        let before = rows(&app, case.resource()).await.len();
        let mut arguments = vec!["import", "--resource", case.resource(), &resources, "-"];
        arguments.extend(case.spec["encoding"].as_str().map(|_| "--encoding"));
        arguments.extend(case.spec["encoding"].as_str());
        arguments.extend(case.is_lenient().then_some("--ignore-unknown-columns"));
        let output = program_fed(&arguments, &database.url(), &case.bytes);
        let stored = rows(&app, case.resource()).await.split_off(before);
        if case.spec["error"].is_null() {
            let said = succeeded(output);
            case.check_rows(&stored);
            let expected = [vec![format!("{} {} imported", stored.len(), case.resource())]];
            let notes = case.notes().into_iter().map(str::to_owned);
            let expected: Vec<String> = expected.into_iter().flatten().chain(notes).collect();
            assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{}", case.name());
        } else {
            let said = refused(&output);
            let expected = &case.spec["error"];
            let place = match text_of(expected, "field") {
                "" => format!("line {}: ", expected["line"]),
                field => format!("line {}, column {field}: ", expected["line"]),
            };
            assert!(said.contains(&place), "{}: {said}", case.name());
            assert!(said.contains(text_of(expected, "detail")), "{}: {said}", case.name());
            assert!(stored.is_empty(), "{}: rows were stored", case.name());
        }
    }
}
