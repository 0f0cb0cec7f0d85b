//! Invalid bodies: each is answered with a 4xx that states the expected form, never with a 500.

use proptest::prelude::*;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, TestApp, passenger, passenger_with, send};

async fn post_raw(app: &TestApp, body: impl Into<reqwest::Body>) -> Answer {
    send(app.request(Method::POST, "/v1/passengers").header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn a_body_that_is_not_json_answers_400() {
    let app = TestApp::start().await;
    for body in [
        &b""[..],
        b"  \n ",
        b"{",
        b"{\"name\":\"x\"",
        b"nonsense",
        b"{\"name\":\"\xff\xfe\"}",
        b"{\"name\":01}",
        b"{\"a\":1,}",
        b"{} {}",
        b"\xef\xbb{}",
        b"{\"name\":\"\n\"}",
        b"{'name':1}",
        b"{\"name\":NaN}",
    ] {
        post_raw(&app, body).await.expect_problem(400, "invalid-json");
    }
}

#[tokio::test]
async fn a_document_that_is_not_an_object_answers_422_for_the_whole_document() {
    let app = TestApp::start().await;
    for body in ["1", "\"text\"", "null", "true"] {
        assert_eq!(post_raw(&app, body).await.pointers(), [""], "{body}");
    }
}

#[tokio::test]
async fn all_invalid_fields_are_reported_in_one_response() {
    let app = TestApp::start().await;
    let answer = post_raw(
        &app,
        r#"{"survived":1,"passengerClass":4,"name":"","sex":"other","age":-1,"siblingsOrSpousesAboard":1.5,
            "parentsOrChildrenAboard":-1,"fare":"13"}"#,
    )
    .await;
    assert_eq!(
        answer.pointers(),
        [
            "/survived",
            "/passengerClass",
            "/name",
            "/sex",
            "/age",
            "/siblingsOrSpousesAboard",
            "/parentsOrChildrenAboard",
            "/fare"
        ]
    );
    assert_eq!(answer.json()["errors"][4], json!({"pointer": "/age", "detail": "must be between 0 and 130, or null"}));
    assert_eq!(post_raw(&app, "{}").await.pointers().len(), 8);
}

#[tokio::test]
async fn each_broken_rule_is_reported_for_its_field() {
    let app = TestApp::start().await;
    for (field, raw) in [
        ("survived", "\"true\""),
        ("survived", "null"),
        ("passengerClass", "0"),
        ("passengerClass", "1.5"),
        ("passengerClass", "\"1\""),
        ("passengerClass", "1e999"),
        ("name", "\"a\\u0000b\""),
        ("name", "\"\\ud800\""),
        ("name", "null"),
        ("name", "[\"x\"]"),
        ("sex", "\"Male\""),
        ("sex", "true"),
        ("age", "130.0001"),
        ("age", "1e999"),
        ("age", "\"27\""),
        ("age", "{\"a\":[1]}"),
        ("siblingsOrSpousesAboard", "2147483648"),
        ("siblingsOrSpousesAboard", "99999999999999999999999999"),
        ("parentsOrChildrenAboard", "-1"),
        ("fare", "-0.01"),
        ("fare", "1e309"),
        ("fare", "null"),
    ] {
        let body = passenger().to_string();
        let body = body.replacen(&format!("\"{field}\":{}", passenger()[field]), &format!("\"{field}\":{raw}"), 1);
        assert_eq!(post_raw(&app, body).await.pointers(), [format!("/{field}")], "{field}: {raw}");
    }
    let too_long = passenger_with("name", "x".repeat(151));
    assert_eq!(app.post("/v1/passengers", &too_long).await.pointers(), ["/name"]);
}

#[tokio::test]
async fn unknown_and_repeated_members_are_refused_by_name() {
    let app = TestApp::start().await;
    let mut body = passenger();
    body["title"] = json!("Mr");
    body["a/b~c"] = json!(1);
    let mut pointers = app.post("/v1/passengers", &body).await.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/a~1b~0c", "/title"]);
    let twice = passenger().to_string().replacen('{', "{\"age\":1,", 1);
    assert_eq!(post_raw(&app, twice).await.pointers(), ["/age"]);
}

#[tokio::test]
async fn a_uuid_is_refused_in_post_and_must_equal_the_path_in_put() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    assert_eq!(app.post("/v1/passengers", &passenger_with("uuid", uuid.as_str())).await.pointers(), ["/uuid"]);
    for other in [json!(Uuid::now_v7().to_string()), json!(7), Value::Null, json!("x")] {
        let answer = app.put(&format!("/v1/passengers/{uuid}"), &passenger_with("uuid", other)).await;
        assert_eq!(answer.pointers(), ["/uuid"]);
    }
}

#[tokio::test]
async fn deep_nesting_and_many_members_are_refused_without_harm() {
    let app = TestApp::start().await;
    let deep = passenger().to_string().replacen("27.0", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), 1);
    assert_eq!(post_raw(&app, deep).await.pointers(), ["/age"]);
    let bare = post_raw(&app, "[".repeat(100_000)).await;
    assert!(bare.status.is_client_error(), "{}", bare.body);
    let many: Vec<String> = (0..50_000).map(|n| format!("\"k{n}\":1")).collect();
    assert_eq!(post_raw(&app, format!("{{{}}}", many.join(","))).await.pointers(), [""]);
    app.get("/hello").await.expect(reqwest::StatusCode::OK);
}

#[tokio::test]
async fn a_body_over_the_limit_answers_413_with_or_without_content_length() {
    let app = TestApp::start_with(&["--max-body-bytes=2048"]).await;
    let large = passenger_with("name", "x".repeat(3000)).to_string();
    post_raw(&app, large.clone()).await.expect_problem(413, "body-too-large");
    let pieces = futures_util::stream::iter(vec![Ok::<_, std::io::Error>(large.into_bytes())]);
    post_raw(&app, reqwest::Body::wrap_stream(pieces)).await.expect_problem(413, "body-too-large");
    for (length, status) in [(2048, 201), (2049, 413)] {
        let body = format!("{:length$}", passenger().to_string());
        assert_eq!(post_raw(&app, body.clone()).await.status, status);
        let halves =
            body.as_bytes().chunks(1024).map(|half| Ok::<_, std::io::Error>(half.to_vec())).collect::<Vec<_>>();
        let unannounced = reqwest::Body::wrap_stream(futures_util::stream::iter(halves));
        assert_eq!(post_raw(&app, unannounced).await.status, status);
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_answers_408() {
    let app = TestApp::start_with(&["--body-timeout-ms=100"]).await;
    let stuck = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    post_raw(&app, reqwest::Body::wrap_stream(stuck)).await.expect_problem(408, "request-timeout");
}

#[tokio::test]
async fn another_media_type_answers_415_and_a_charset_is_accepted() {
    let app = TestApp::start().await;
    let body = passenger().to_string();
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "nonsense"] {
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", media_type);
        send(request.body(body.clone())).await.expect_problem(415, "unsupported-media-type");
    }
    for media_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = app.request(Method::POST, "/v1/passengers").header("content-type", media_type);
        assert_eq!(send(request.body(body.clone())).await.status, 201, "{media_type}");
    }
}

#[tokio::test]
async fn contradictory_or_unsupported_charsets_answer_415() {
    let app = TestApp::start().await;
    let ndjson = passenger().to_string();
    let csv = "survived,passengerClass,name,sex,age,siblingsOrSpousesAboard,parentsOrChildrenAboard,fare\n1,1,A,male,,0,0,1\n";
    for (body, types) in [
        (&*ndjson, &["application/json; charset=iso-8859-1"][..]),
        (&ndjson, &["application/json;charset=\"utf-16\""]),
        (&ndjson, &["application/x-ndjson; charset=windows-1252"]),
        (&ndjson, &["application/json; charset=nonsense"]),
        (&ndjson, &["application/json", "application/x-ndjson"]),
        (csv, &["text/csv; charset=us-ascii"]),
        (csv, &["text/csv; charset=utf-8; charset=latin1"]),
        (csv, &["text/csv", "text/csv; charset=latin1"]),
    ] {
        let request = app.request(Method::POST, "/v1/passengers");
        let request = types.iter().fold(request, |request, value| request.header("content-type", *value));
        send(request.body(body.to_owned())).await.expect_problem(415, "unsupported-media-type");
    }
    assert_eq!(app.get("/v1/passengers").await.body, "[]");
}

#[tokio::test]
async fn the_table_constraints_match_the_column_rules() {
    let app = TestApp::start().await;
    let client = app.database.as_ref().expect("own database").client().await;
    for (column, value) in [
        ("passenger_class", "4"),
        ("name", "''"),
        ("name", "repeat('x', 151)"),
        ("sex", "'other'"),
        ("age", "-1"),
        ("age", "131"),
        ("age", "'NaN'"),
        ("siblings_or_spouses_aboard", "-1"),
        ("parents_or_children_aboard", "-1"),
        ("fare", "-1"),
        ("fare", "'NaN'"),
        ("fare", "'Infinity'"),
    ] {
        let columns =
            "survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, parents_or_children_aboard, fare";
        let values = [
            ("survived", "true"),
            ("passenger_class", "1"),
            ("name", "'x'"),
            ("sex", "'male'"),
            ("age", "1"),
            ("siblings_or_spouses_aboard", "0"),
            ("parents_or_children_aboard", "0"),
            ("fare", "1"),
        ]
        .map(|(name, good)| if name == column { value } else { good })
        .join(", ");
        let error = client
            .batch_execute(&format!("insert into passengers (uuid, {columns}) values (gen_random_uuid(), {values})"))
            .await
            .expect_err(value);
        let constraint = error.as_db_error().and_then(|db| db.constraint()).unwrap_or_default().to_owned();
        let field = crate::harness::resources()[0].constraint_field(&constraint);
        assert!(field.is_some(), "{column} = {value}: constraint {constraint:?} maps to no field");
    }
}

#[test]
fn no_body_makes_the_parser_panic_or_accept_an_invalid_value() {
    use pycrudapi::resource::json::{UuidRule, read};
    use pycrudapi::resource::value::Value;
    let value = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| json!(n).to_string()),
        ".{0,160}".prop_map(|text| json!(text).to_string()),
        Just("\"male\"".to_owned()),
        Just("1".to_owned()),
    ];
    let names = prop::sample::select(vec![
        "survived",
        "passengerClass",
        "name",
        "sex",
        "age",
        "siblingsOrSpousesAboard",
        "parentsOrChildrenAboard",
        "fare",
        "uuid",
        "x",
    ]);
    let body = prop::collection::vec((names, value), 0..12).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    proptest!(|(body in body)| {
        if let Ok(values) = read(crate::harness::resources()[0], body.as_bytes(), UuidRule::Refused, None) {
            let [
                Value::Boolean(_), Value::Integer(class), Value::Text(name), Value::Text(sex), age,
                Value::Integer(siblings), Value::Integer(parents), Value::Number(fare),
            ] = values.as_slice() else { panic!("{values:?}") };
            prop_assert!((1..=3).contains(class));
            prop_assert!((1..=150).contains(&name.chars().count()) && !name.contains('\0'));
            prop_assert!(sex == "male" || sex == "female");
            match age {
                Value::Null => {}
                Value::Number(age) => prop_assert!((0.0..=130.0).contains(age)),
                other => panic!("{other:?}"),
            }
            prop_assert!([siblings, parents].iter().all(|count| (0..=i64::from(i32::MAX)).contains(*count)));
            prop_assert!(*fare >= 0.0 && fare.is_finite());
        }
    });
    proptest!(|(body in prop::collection::vec(any::<u8>(), 0..200))| {
        let _ = read(crate::harness::resources()[0], &body, UuidRule::Refused, None);
    });
}
