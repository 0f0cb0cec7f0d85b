//! Error messages state what was sent and what to send instead: compressed bodies and workbooks, JSON in other encodings and
//! with syntax errors, conditions in other grammars, numbers and nulls in other notations.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, send};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const NDJSON: &str = "application/x-ndjson";
const THINGS: &str = r#"
name = "things"
column = [
    { name = "label", type = "string", minLength = 1, maxLength = 60 },
    { name = "amount", type = "integer", nullable = true, required = false },
    { name = "size", type = "number", nullable = true, required = false },
    { name = "flag", type = "boolean", nullable = true, required = false },
    { name = "day", type = "string", format = "date", nullable = true, required = false },
]
"#;

async fn service() -> TestApp {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("things.toml"), THINGS).expect("written");
    TestApp::start_with(&[&format!("--resources-dir={}", folder.path().display())]).await
}

async fn sent(app: &TestApp, method: Method, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    send(app.request(method, path).header("content-type", media_type).body(body.into())).await
}

async fn posted(app: &TestApp, media_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    sent(app, Method::POST, "/v1/things", media_type, body).await
}

/// The detail and the errors of a problem as one string.
fn told(problem: &Value) -> String {
    format!("{} {}", problem["detail"], problem["errors"])
}

#[tokio::test]
async fn a_body_that_is_not_text_is_identified() {
    let app = service().await;
    let item = "/v1/passengers/0192d3a0-0000-7000-8000-000000000000";
    for (body, name) in [
        (&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], "is compressed by gzip; send it with the header Content-Encoding: gzip"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "is a zip archive, as .xlsx and .ods workbooks are"),
        (b"\x28\xb5\x2f\xfd\x04\x58\x49\0\0", "is compressed by zstd"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "is an Excel 97-2003 workbook"),
    ] {
        for media_type in [CSV, NDJSON, JSON] {
            let answer = posted(&app, media_type, body).await;
            assert!(answer.status.is_client_error() && answer.body.contains(name), "{media_type}: {}", answer.body);
        }
        for (method, path, media_type) in [
            (Method::PUT, item, JSON),
            (Method::PATCH, item, JSON),
            (Method::POST, "/v1/steps", JSON),
            (Method::POST, "/v1/steps", "application/x-www-form-urlencoded"),
        ] {
            let answer = sent(&app, method, path, media_type, body).await;
            assert!(answer.status == 400 && answer.body.contains(name), "{path}: {}", answer.body);
        }
    }
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for text in ["{\"label\":\"a\"}", "[{\"label\":\"a\"}]", "\u{feff}{\"label\":\"a\"}"] {
        for media_type in [JSON, NDJSON] {
            let answer = posted(&app, media_type, utf16(text)).await;
            assert!(answer.status.is_client_error() && answer.body.contains("is encoded in UTF-16"), "{}", answer.body);
        }
    }
    let typed = posted(&app, "application/gzip", "x").await.expect_problem(415, "unsupported-media-type");
    assert!(told(&typed).contains("Content-Encoding: gzip"), "{typed}");
    let many = app.get("/v1/things").await;
    assert_eq!(many.json(), json!([]), "nothing was stored");
}

#[tokio::test]
async fn lines_end_in_lf_crlf_or_cr_and_errors_number_them_accordingly() {
    let app = service().await;
    for end in ["\n", "\r\n", "\r"] {
        let rows = format!("{{\"label\":\"a\"}}{end}{end}{{\"label\":\"b\"}}{end}");
        assert_eq!(posted(&app, NDJSON, rows).await.expect(StatusCode::CREATED).json()["count"], 2, "{end:?}");
        let spread = format!("{{\r\"label\":\r\"a\"}}{end}");
        assert_eq!(posted(&app, NDJSON, spread).await.expect(StatusCode::CREATED).json()["count"], 1, "{end:?}");
        let bad = format!("{{\"label\":\"a\"}}{end}{end}{{\"label\":\"\"}}{end}{{\"label\": x}}{end}");
        let problem = posted(&app, NDJSON, bad).await.expect_problem(422, "invalid-fields");
        assert_eq!((&problem["errors"][0]["line"], &problem["errors"][0]["field"]), (&json!(3), &json!("label")));
        assert_eq!(problem["errors"][1]["line"], 4, "{end:?}");
        assert!(told(&problem).contains("must be valid JSON; invalid at line 4 column 11"), "{end:?}: {problem}");
        let bad = format!("[{{\"label\":\"a\"}},{end} {{\"label\":{end} x}}]");
        let problem = posted(&app, JSON, bad).await.expect_problem(422, "invalid-fields");
        assert!(told(&problem).contains("must be valid JSON; invalid at line 3 column 2"), "{end:?}: {problem}");
        let bad = format!("{{\"label\":\"a\",{end}{end} \"amount\" 1}}");
        let problem = posted(&app, JSON, bad).await.expect_problem(400, "invalid-json");
        assert!(told(&problem).contains("not valid JSON at line 3 column 11"), "{end:?}: {problem}");
    }
}

#[tokio::test]
async fn an_unpaired_surrogate_is_reported_with_its_position_and_field() {
    let app = service().await;
    let half = "is an unpaired surrogate; send both surrogates";
    for (media_type, body, place) in [
        (JSON, "{\n \"label\": \"é\\ud83d\"}", "line 2 column 13"),
        (JSON, "[{\"label\":\"a\"},\n{\"label\":\"b\\ud83dx\"}]", "line 2 column 12"),
        (NDJSON, "{\"label\":\"a\"}\r{\"label\":\"\\ud83d\"}", "line 2 column 11"),
    ] {
        let problem = posted(&app, media_type, body).await.expect_problem(422, "invalid-fields");
        let error = &problem["errors"][0];
        let named = error["field"].as_str().or(error["pointer"].as_str()).expect("a field");
        assert!(named.ends_with("label"), "{error}");
        let detail = error["detail"].as_str().expect("a text");
        assert!(detail.contains(&format!("\\ud83d at {place} {half}")), "{detail}");
    }
    let step = r#"{"component":"\ud83d","version":"1","owner":"o","status":"s"}"#;
    let problem = sent(&app, Method::POST, "/v1/steps", JSON, step).await.expect_problem(422, "invalid-fields");
    assert!(problem["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains(half)), "{problem}");
    let key = posted(&app, JSON, r#"{"label":"a","x\ud83d":1}"#).await.expect_problem(400, "invalid-json");
    assert!(key["detail"].as_str().is_some_and(|detail| detail.contains(half)), "{key}");
}

#[tokio::test]
async fn errors_in_json_state_what_to_send_instead() {
    let app = service().await;
    for (value, expected) in [
        ("0x10", "0x10 is not a JSON number"),
        ("+5", "+5 is not a JSON number"),
        ("NaN", "JSON has no NaN; send null"),
        ("\"5\"", "send it without quotes"),
        ("\"NA\"", "send null, without quotes"),
        ("\"0x10\"", "send 16"),
        ("9223372036854775808", "between -9223372036854775808 and 9223372036854775807"),
    ] {
        let answer = posted(&app, JSON, format!("{{\"label\":\"a\",\"amount\":{value}}}")).await;
        assert!(answer.status.is_client_error(), "{}", answer.body);
        assert!(told(&answer.json()).contains(expected), "{value}: {}", answer.body);
    }
    for (field, value, expected) in [
        ("size", "9007199254740993", "a double cannot represent all of its digits"),
        ("flag", "\"true\"", "send it without quotes"),
        ("day", "\"NaT\"", "send null, without quotes"),
        ("day", "\"03/04/2025\"", "it is 2025-04-03 or 2025-03-04"),
    ] {
        let answer = posted(&app, JSON, format!("{{\"label\":\"a\",\"{field}\":{value}}}")).await;
        assert!(told(&answer.expect_problem(422, "invalid-fields")).contains(expected), "{}", answer.body);
    }
    for (field, value, stored) in [
        ("amount", "9007199254740993", json!(9_007_199_254_740_993_i64)),
        ("amount", "1e3", json!(1000)),
        ("size", "123456789012345680000", json!(123_456_789_012_345_680_000_f64)),
        ("day", "\"4 March 2025\"", json!("2025-03-04")),
        ("label", "\"NA\"", json!("NA")),
    ] {
        let body = if field == "label" {
            format!("{{\"label\":{value}}}")
        } else {
            format!("{{\"label\":\"a\",\"{field}\":{value}}}")
        };
        assert_eq!(posted(&app, JSON, body).await.expect(StatusCode::CREATED).json()[field], stored);
    }
}

#[tokio::test]
async fn rows_in_a_wrapper_or_with_the_marks_of_other_formats_are_taken_or_explained() {
    let app = service().await;
    let wrapped = posted(&app, JSON, r#"{"data":[{"label":"a"}]}"#).await.expect_problem(422, "invalid-fields");
    assert!(told(&wrapped).contains("to create many rows, send the array itself"), "{wrapped}");
    let commas = posted(&app, NDJSON, "{\"label\":\"a\"},\n{\"label\":\"b\"}\n").await;
    let commas = commas.expect_problem(422, "invalid-fields");
    assert!(told(&commas).contains("remove the comma after the object"), "{commas}");
    for (media_type, body) in [
        (NDJSON, "{\"label\":\"a\"}\n\u{feff}{\"label\":\"b\"}\n"),
        ("application/jsonl", "{\"label\":\"a\"}\n{\"label\":\"b\"}\n"),
        ("Application/NDJSON; charset=utf-8", "{\"label\":\"a\"}\n{\"label\":\"b\"}\n"),
        ("text/tab-separated-values", "label\tamount\na\t1\nb\t2\n"),
        ("application/csv", "label,amount\na,1\nb,2\n"),
        (CSV, "\u{feff}\u{feff}label,amount\na,1\nb,2\n"),
    ] {
        let answer = posted(&app, media_type, body).await;
        assert_eq!(answer.expect(StatusCode::CREATED).json()["count"], 2, "{media_type}");
    }
}

#[tokio::test]
async fn a_condition_in_another_grammar_is_answered_with_the_correct_form() {
    let app = TestApp::start().await;
    for (query, expected) in [
        ("age=30", "write eq.30"),
        ("age=>30", "write gt.30"),
        ("age=>=30", "write gte.30"),
        ("age==30", "write eq.30"),
        ("age=!=30", "write neq.30"),
        ("age>=30", "write age=gte.30"),
        ("age>30", "write age=gt.30"),
        ("age<30", "write age=lt.30"),
        ("age!=30", "write age=neq.30"),
        ("age[gte]=30", "write age=gte.30"),
        ("age__lt=30", "write age=lt.30"),
        ("age=eq.null", "write is.null"),
        ("age=neq.null", "write is.not_null"),
        ("age=isnull", "write is.null"),
        ("age=is.not.null", "write is.not_null"),
        ("age=is.30", "write eq.30"),
        ("survived=is.1", "write is.true"),
        ("name=like.%x%", "write %25 for a percent sign, or * instead of it in a pattern"),
        ("age=eq", "write eq.30"),
        ("age=in", "write in.(30)"),
        ("fare=eq.7,25", "write eq.7.25"),
        ("age=eq.'30'", "write eq.30"),
        ("passengerClass=in.1,2", "write in.(1,2)"),
        ("passengerClass=in.[1,2]", "write in.(1,2)"),
        ("passengerClass=nin.(1,2)", "write not.in.(1,2)"),
        ("age=gte:30", "write gte.30"),
        ("age=GTE.30", "write gte.30"),
        ("age=ge.30", "write gte.30"),
        ("age=ne.30", "write neq.30"),
        ("age=not.ge.30", "write not.gte.30"),
        ("name=contains.x", "write like.*x*"),
        ("name=startswith.x", "write like.x*"),
        ("sex=eq.Male", "write eq.male"),
        ("age=!eq.30", "write not.eq.30"),
        ("or=age.eq.1,age.eq.2", "write (age.eq.1,age.eq.2)"),
        ("or=(age=1,age.lt.2)", "write age.eq.1"),
        ("or=(age.30)", "write age.eq.30"),
        ("or=(age.ge.30)", "write age.gte.30"),
        ("age=between.1,2", "write age=gte.1&age=lte.2"),
        ("age=between(1, 2)", "write age=gte.1&age=lte.2"),
        ("age=1..5", "write age=gte.1&age=lte.5"),
        ("age=[1,5]", "write age=gte.1&age=lte.5"),
        ("age=not.between.1.and.2", "write or=(age.lt.1,age.gt.2)"),
        ("or=(age.1..5)", "write and(age.gte.1,age.lte.5)"),
        ("age=isdistinct.30", "write or=(age.neq.30,age.is.null)"),
        ("name=like(any).{A*,B*}", "write or=(name.like.A*,name.like.B*)"),
        ("name=match.^Smith", "write like.Smith*"),
        ("name=match.Smith", "write like.*Smith*"),
        ("name=imatch.^a.*b.$", "write ilike.a*b_"),
        ("name=not.match.^Smith", "write not.like.Smith*"),
        ("name=wfts.smith", "write ilike.*smith*"),
        ("order=age desc", "write age.desc"),
        ("order=-age", "write age.desc"),
        ("order=age:desc", "write age.desc"),
        ("order=age ASC", "write age.asc"),
        ("order=age,desc", "write age.desc"),
        ("order=desc(age),name", "write age.desc"),
        ("sort=-age,name", "write order=age.desc,name"),
        ("count=exact", "send the header Prefer: count=exact"),
        ("format=csv", "send the header Accept: text/csv"),
        ("select=title:name", "write name"),
        ("select=age::text", "write age"),
        ("select=fare.sum()", "write fare"),
    ] {
        let problem = app.get(&format!("/v1/passengers?{query}")).await.expect_problem(400, "invalid-query");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(expected), "{query}: {detail}");
        // The suggested condition is accepted.
        let column = query.split(['=', '>', '<', '!', '[', '_']).next().expect("a column");
        let Some(written) = expected.strip_prefix("write ").filter(|_| !expected.contains('%')) else { continue };
        let written = match (column, written.split_once('=')) {
            (_, Some(_)) => written.to_owned(),
            ("or", None) if written.starts_with('(') => format!("or={written}"),
            ("or", None) => format!("or=({written})"),
            (_, None) if written.starts_with("and(") => format!("or=({written})"),
            (column, None) => format!("{column}={written}"),
        };
        app.get(&format!("/v1/passengers?{written}")).await.expect(StatusCode::OK);
    }
    // No suggestion is made for a condition that has no valid form.
    for query in
        ["age=contains.3", "age=is.maybe", "survived=ge.1", "age=like(any).{a*}", "age=eq.many", "name=match.a|b"]
    {
        let problem = app.get(&format!("/v1/passengers?{query}")).await.expect_problem(400, "invalid-query");
        assert!(!told(&problem).contains("; write"), "{query}: {problem}");
    }
}

#[tokio::test]
async fn a_time_at_the_limits_is_compared_correctly_or_refused() {
    let app = TestApp::start().await;
    for (path, status) in [
        ("/v1/steps?end_datetime=9999-12-31T23:59:59-01:00", 200),
        ("/v1/steps?start_datetime=0001-01-01T00:00:00%2B01:00", 200),
        ("/v1/steps?start_datetime=9999-12-31T23:59:59-01:00", 400),
        ("/v1/steps?end_datetime=0001-01-01T00:00:00%2B01:00", 400),
        ("/v1/air-quality?to=9999-12-31", 200),
        ("/v1/air-quality?from=0001-01-01T00:00:00%2B01:00", 200),
        ("/v1/air-quality?from=9999-12-29T23:59:59.9999999", 400),
        ("/v1/air-quality?to=0000-01-01", 400),
    ] {
        assert_eq!(app.get(path).await.status, status, "{path}");
    }
}
