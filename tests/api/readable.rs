//! Lenient parsing of unambiguous input and precise error messages: byte order marks, bodies altered by curl, bodies without
//! rows, failures of subcommands.

use std::process::Command;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Database, TestApp, passenger, send};

const MARK: &[u8] = b"\xef\xbb\xbf";
const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
const FORM: &str = "application/x-www-form-urlencoded";

/// A service with an additional resource.
async fn with_notes() -> TestApp {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "name = \"notes\"\n\n[[column]]\nname = \"text\"\ntype = \"string\"\nmaxLength = 100\n";
    std::fs::write(folder.path().join("notes.toml"), text).expect("written");
    TestApp::start_with(&[&format!("--resources-dir={}", folder.path().display())]).await
}

async fn sent(app: &TestApp, method: Method, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    send(app.request(method, path).header("content-type", media_type).body(body.into())).await
}

/// The same body without Content-Length, byte by byte.
async fn trickled(app: &TestApp, path: &str, media_type: &str, body: &[u8]) -> Answer {
    let bytes: Vec<_> = body.iter().map(|byte| Ok::<_, std::io::Error>(vec![*byte])).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(bytes));
    send(app.request(Method::POST, path).header("content-type", media_type).body(body)).await
}

fn marked(text: impl AsRef<str>) -> Vec<u8> {
    [MARK, text.as_ref().as_bytes()].concat()
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn with_handling_lenient_unknown_members_are_ignored_and_listed() {
    let app = with_notes().await;
    let one = json!({"text": "a", "colour": "red", "shape": {"round": true}});
    let lenient = |media_type: &'static str, body: String| {
        let request = app.request(Method::POST, "/v1/notes").header("content-type", media_type);
        send(request.header("prefer", "handling=lenient").body(body))
    };
    sent(&app, Method::POST, "/v1/notes", JSON, one.to_string()).await.expect_problem(422, "invalid-fields");
    let created = lenient(JSON, one.to_string()).await;
    assert_eq!(created.expect(StatusCode::CREATED).json()["text"], "a");
    assert_eq!(created.header("preference-applied"), "handling=lenient");
    for (media_type, body) in [(JSON, json!([one, one]).to_string()), (NDJSON, format!("{one}\n{one}\n"))] {
        let answer = lenient(media_type, body).await;
        let notes = ["the unknown columns \"colour\", \"shape\" were left out"];
        assert_eq!(answer.expect(StatusCode::CREATED).json(), json!({"count": 2, "notes": notes}));
        assert_eq!(answer.header("preference-applied"), "handling=lenient");
    }
    // Other errors are still reported.
    for wrong in [json!({"text": "", "uuid": "x"}), json!({"colour": "red"}), json!({"text": 1, "colour": "red"})] {
        lenient(JSON, wrong.to_string()).await.expect_problem(422, "invalid-fields");
    }
}

#[tokio::test]
async fn error_messages_state_the_cause() {
    let app = TestApp::start().await;
    let many: serde_json::Map<String, Value> = (0..301).map(|number| (format!("m{number}"), json!(1))).collect();
    let pretty = serde_json::to_string_pretty(&passenger()).expect("JSON");
    let far = passenger().to_string().replace("27.0", "1e400");
    for (media_type, body, says) in [
        (JSON, Value::Object(many.clone()).to_string().into_bytes(), "must have at most 300 members"),
        (NDJSON, Value::Object(many).to_string().into_bytes(), "must have at most 300 members"),
        (NDJSON, pretty.into_bytes(), "each line must contain a complete object"),
        (JSON, far.clone().into_bytes(), "a double is zero or has a magnitude between"),
        (NDJSON, far.into_bytes(), "a double is zero or has a magnitude between"),
        (CSV, b"\x1f\x8b\x08\x00rest".to_vec(), "is compressed by gzip"),
    ] {
        let answer = sent(&app, Method::POST, "/v1/passengers", media_type, body).await;
        answer.expect_problem(422, "invalid-fields");
        assert!(answer.body.contains(says), "{media_type}: {}", answer.body);
    }
    let digits = format!("/v1/ledger?amount=eq.{}", "9".repeat(36));
    let app = TestApp::start_with(&[&crate::subjects::flag()]).await;
    let problem = app.get(&digits).await.expect_problem(400, "invalid-query");
    assert!(detail(&problem).contains("at most 35 digits"), "{problem}");
}

#[tokio::test]
async fn a_byte_order_mark_is_accepted_at_the_start_of_every_body() {
    let app = with_notes().await;
    for (path, one) in [("/v1/passengers", passenger()), ("/v1/notes", json!({"text": "a"}))] {
        let created = sent(&app, Method::POST, path, JSON, marked(one.to_string())).await;
        let own = format!("{path}/{}", created.expect(StatusCode::CREATED).json()["uuid"].as_str().expect("a uuid"));
        sent(&app, Method::PUT, &own, JSON, marked(one.to_string())).await.expect(StatusCode::OK);
        sent(&app, Method::PATCH, &own, JSON, marked("{}")).await.expect(StatusCode::OK);
        for (media_type, body, count) in [
            (JSON, json!([one, one]).to_string(), Some(2)),
            (JSON, format!(" \n{}", json!([one])), Some(1)),
            (JSON, one.to_string(), None),
            (NDJSON, format!("{one}\n{one}\n"), Some(2)),
        ] {
            for answer in [
                sent(&app, Method::POST, path, media_type, marked(&body)).await,
                trickled(&app, path, media_type, &marked(&body)).await,
            ] {
                let answer = answer.expect(StatusCode::CREATED).json();
                assert_eq!(answer.get("count").and_then(Value::as_u64), count, "{media_type} {body}");
            }
        }
        for broken in [&MARK[..2], b"\xef\xbb[", b"\xef["] {
            let answer = trickled(&app, path, NDJSON, &[broken, one.to_string().as_bytes()].concat()).await;
            answer.expect_problem(422, "invalid-fields");
        }
    }
    let step = json!({"component": "c", "version": "1", "owner": "o", "status": "s"});
    sent(&app, Method::POST, "/v1/steps", JSON, marked(step.to_string())).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_patch_may_be_sent_as_application_json() {
    let app = TestApp::start().await;
    let own = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let answer = sent(&app, Method::PATCH, &own, JSON, r#"{"age":null}"#).await;
    assert_eq!(answer.expect(StatusCode::OK).json()["age"], Value::Null);
    let refused = sent(&app, Method::PATCH, &own, "text/plain", "{}").await;
    refused.expect_problem(415, "unsupported-media-type");
    assert_eq!(refused.header("accept-patch"), "application/merge-patch+json, application/json");
}

#[tokio::test]
async fn a_body_without_rows_creates_nothing_and_reports_it() {
    let app = with_notes().await;
    for (path, header) in [
        ("/v1/notes", "text"),
        ("/v1/passengers", "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare"),
    ] {
        for (media_type, body) in
            [(JSON, "[]"), (JSON, " [ ] "), (JSON, "\u{feff}[]"), (CSV, header), (CSV, &format!("{header}\r\n"))]
        {
            for preference in ["return=minimal", "return=representation"] {
                let request = app.request(Method::POST, path).header("content-type", media_type);
                let answer = send(request.header("prefer", preference).body(body.to_owned())).await;
                answer.expect(StatusCode::OK);
                if preference == "return=minimal" {
                    assert_eq!(answer.json(), json!({"count": 0}), "{body}");
                }
            }
            let keyed = || {
                let request = app.request(Method::POST, path).header("content-type", media_type);
                send(request.header("idempotency-key", format!("{path} {body:?}")).body(body.to_owned()))
            };
            assert_eq!(keyed().await.status, StatusCode::OK);
            assert_eq!(keyed().await.header("idempotency-replayed"), "true");
        }
        for media_type in [JSON, CSV, NDJSON] {
            for body in ["", " ", "\n\r\n"] {
                for answer in [
                    sent(&app, Method::POST, path, media_type, body).await,
                    trickled(&app, path, media_type, body.as_bytes()).await,
                ] {
                    let problem = answer.expect_problem(400, "invalid-json");
                    assert!(detail(&problem).contains("the body is empty"), "{problem}");
                }
            }
        }
        assert_eq!(app.get(path).await.json(), json!([]));
    }
}

#[tokio::test]
async fn a_body_altered_by_curl_is_refused_with_the_right_option() {
    let app = with_notes().await;
    let person = passenger().to_string();
    for (path, media_type, body) in [
        ("/v1/notes", CSV, "texta\"b\"".to_owned()),
        ("/v1/notes", CSV, "text,more1,2".to_owned()),
        ("/v1/passengers", CSV, "survived,passengerClass,name,sex,age,fareTrue,1,a,male,1,2".to_owned()),
        ("/v1/passengers", NDJSON, format!("{person}{person}")),
        ("/v1/notes", NDJSON, r#"{"text":"a"}{"text":"b"}"#.to_owned()),
    ] {
        let problem =
            sent(&app, Method::POST, path, media_type, body.clone()).await.expect_problem(422, "invalid-fields");
        assert!(detail(&problem).contains("--data-binary"), "{body}: {problem}");
        let problem = sent(&app, Method::POST, path, FORM, body).await.expect_problem(415, "unsupported-media-type");
        assert!(detail(&problem).contains("--data-binary") && detail(&problem).contains(media_type), "{problem}");
    }
    for (media_type, body) in
        [(CSV, "nothing\na\n"), (NDJSON, "{\"text\":1}\n"), (NDJSON, "{\"text\":1}"), (CSV, "text\n\"\"\"\"\"\n")]
    {
        let problem =
            sent(&app, Method::POST, "/v1/notes", media_type, body).await.expect_problem(422, "invalid-fields");
        assert!(!detail(&problem).contains("curl"), "{problem}");
    }
    let step = r#"{"component":"c","version":"1","owner":"o","status":"s"}"#;
    let problem = sent(&app, Method::POST, "/v1/steps", FORM, step).await.expect_problem(400, "invalid-query");
    assert!(detail(&problem).contains("Content-Type: application/json"), "{problem}");
}

/// Runs the program with only these settings until it exits, and returns its standard error.
fn failure(arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pycrudapi"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .output()
        .expect("it runs");
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[tokio::test]
async fn no_failure_of_a_subcommand_repeats_its_cause() {
    let database = Database::migrated().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let header = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n";
    let uuid = "0191c2a8-0000-7000-8000-000000000000";
    let twice = format!("uuid,{header}{0}{0}", format!("{uuid},true,1,a,male,1,0,0,1\n"));
    let (url, here) = (database.url(), folder.path().display().to_string());
    let good = [("DATABASE_URL", url.as_str()), ("LOG", "warn")];
    let reached = |arguments: &[&str]| failure(arguments, &good);
    let with = |name, value| failure(&["migrate"], &[(name, value), ("LOG", "warn")]);
    let said = [
        ("Is a directory", reached(&["import", &here])),
        ("No such file", reached(&["import", "/nowhere/at/all"])),
        ("line", reached(&["import", &file("short.csv", &format!("{header}true,1,a\n"))])),
        ("line", reached(&["import", &file("quote.csv", &format!("{header}true,1,\"a\n"))])),
        ("line", reached(&["import", &file("value.csv", &format!("{header}true,9,a,male,1,0,0,1\n"))])),
        ("uuid", reached(&["import", &file("twice.csv", &twice)])),
        ("no rows", reached(&["import", &file("empty.csv", header)])),
        ("Is a directory", failure(&["resource", "infer", &here, "--name=things"], &[])),
        ("DATABASE_URL", with("DATABASE_URL", "mysql://x")),
        ("DATABASE_URL", with("DATABASE_URL", "postgres://localhost:70000000/x")),
        ("sslrootcert", with("DATABASE_URL", "host=localhost sslmode=verify-ca sslrootcert=/nowhere")),
        ("onnect", with("DATABASE_URL", "postgres://127.0.0.1:1/x")),
        ("LOG", failure(&["migrate"], &[("LOG", "a=b=c")])),
        ("not ready", failure(&["healthcheck"], &[("HEALTHCHECK_URL", "http://127.0.0.1:1/readyz")])),
    ];
    for (says, text) in said {
        assert!(text.contains(says), "{says}: {text}");
        let parts: Vec<&str> = text.trim_end().split(": ").filter(|part| part.len() > 9).collect();
        for (index, part) in parts.iter().enumerate() {
            assert!(parts.iter().skip(index + 1).all(|other| !other.contains(part)), "{part:?} is repeated: {text}");
        }
    }
}
