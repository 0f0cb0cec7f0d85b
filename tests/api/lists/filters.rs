//! Conditions in PostgREST's grammar: each operator, combined conditions, and error messages.

use serde_json::Value;

use super::{crowd, faults, get, rows, uuids};
use crate::harness::passenger_with;

type Check = fn(&Value) -> bool;

fn number(row: &Value, field: &str) -> Option<f64> {
    row[field].as_f64()
}

fn name(row: &Value) -> &str {
    row["name"].as_str().expect("a name")
}

#[tokio::test]
async fn each_operator_selects_the_matching_rows() {
    let app = crowd(200).await;
    let everybody = rows(&app.get("/passengerlist").await);
    let cases: Vec<(&str, &str, Check)> = vec![
        ("age", "eq.5.5", |row| number(row, "age") == Some(5.5)),
        ("age", "neq.5.5", |row| number(row, "age").is_some_and(|age| age != 5.5)),
        ("age", "not.eq.5.5", |row| number(row, "age").is_some_and(|age| age != 5.5)),
        ("age", "gt.5.5", |row| number(row, "age").is_some_and(|age| age > 5.5)),
        ("age", "gte.5.5", |row| number(row, "age").is_some_and(|age| age >= 5.5)),
        ("fare", "lt.14.5", |row| number(row, "fare") < Some(14.5)),
        ("fare", "lte.14.5", |row| number(row, "fare") <= Some(14.5)),
        ("fare", "in.(0,14.5,1e3)", |row| [Some(0.0), Some(14.5)].contains(&number(row, "fare"))),
        ("fare", "not.in.(0,14.5)", |row| ![Some(0.0), Some(14.5)].contains(&number(row, "fare"))),
        ("age", "is.null", |row| row["age"].is_null()),
        ("age", "not.is.null", |row| !row["age"].is_null()),
        ("age", "is.not_null", |row| !row["age"].is_null()),
        ("survived", "is.true", |row| row["survived"] == true),
        ("survived", "eq.false", |row| row["survived"] == false),
        ("survived", "in.(true,false)", |_| true),
        ("passengerClass", "gte.2", |row| number(row, "passengerClass") >= Some(2.0)),
        ("passengerClass", "lt.-9000000000000000000", |_| false),
        ("siblingsOrSpousesAboard", "eq.3", |row| number(row, "siblingsOrSpousesAboard") == Some(3.0)),
        ("parentsOrChildrenAboard", "neq.1", |row| number(row, "parentsOrChildrenAboard") != Some(1.0)),
        ("sex", "eq.female", |row| row["sex"] == "female"),
        ("sex", "like.*male", |_| true),
        ("name", "eq.Smith, Dr. 100%2", |row| name(row) == "Smith, Dr. 100%2"),
        ("name", "gt.a", |row| name(row) > "a"),
        ("name", "like.Smith*", |row| name(row).starts_with("Smith")),
        ("name", "not.like.Smith%", |row| !name(row).starts_with("Smith")),
        ("name", "ilike.*SMITH*", |row| name(row).to_lowercase().contains("smith")),
        ("name", "ilike.*ÅNGSTRÖM*", |row| name(row).contains("Ångström")),
        ("name", "like.*100\\%*", |row| name(row).contains("100%")),
        ("name", "like.*a\\_b*", |row| name(row).contains("a_b")),
        ("name", "in.(\"de Brun, Mrs. \\\"A\\\"1\",\"Smith, Dr. 100%2\")", |row| {
            ["de Brun, Mrs. \"A\"1", "Smith, Dr. 100%2"].contains(&name(row))
        }),
        ("or", "(age.lt.2,fare.gte.80)", |row| {
            number(row, "age").is_some_and(|age| age < 2.0) || number(row, "fare") >= Some(80.0)
        }),
        ("not.or", "(age.is.null,sex.eq.male)", |row| !row["age"].is_null() && row["sex"] == "female"),
        ("and", "(sex.eq.male,or(passengerClass.eq.1,not.and(survived.is.true,fare.gt.7)))", |row| {
            row["sex"] == "male"
                && (row["passengerClass"] == 1 || !(row["survived"] == true && number(row, "fare") > Some(7.0)))
        }),
        ("or", "(name.eq.\"Smith, Dr. 100%2\",name.eq.nobody)", |row| name(row) == "Smith, Dr. 100%2"),
    ];
    for (parameter, value, check) in cases {
        let expected: Vec<Value> = everybody.iter().filter(|row| check(row)).cloned().collect();
        for path in ["/passengerlist", "/v1/passengers"] {
            let found = rows(&get(&app, path, &[(parameter, value), ("limit", "1000")]).await);
            assert_eq!(uuids(&found), uuids(&expected), "{parameter}={value}");
        }
    }
}

#[tokio::test]
async fn conditions_on_one_column_and_on_several_must_all_hold() {
    let app = crowd(100).await;
    let found = rows(&app.get("/v1/passengers?age=gte.3&age=lt.6&sex=eq.male&or=(fare.gt.10,survived.is.true)").await);
    assert!(!found.is_empty());
    for row in &found {
        let age = number(row, "age").expect("an age");
        assert!((3.0..6.0).contains(&age) && row["sex"] == "male", "{row}");
        assert!(row["fare"].as_f64() > Some(10.0) || row["survived"] == true, "{row}");
    }
}

#[tokio::test]
async fn a_row_is_found_by_a_condition_on_its_key() {
    let app = crowd(3).await;
    let uuid = app.create(&passenger_with("name", "One")).await;
    let found = rows(&app.get(&format!("/v1/passengers?uuid=eq.{uuid}")).await);
    assert_eq!(uuids(&found), [uuid]);
}

#[tokio::test]
async fn values_are_never_interpreted_as_sql() {
    let app = crowd(5).await;
    for text in ["eq.'; drop table passengers; --", "like.%' or '1'='1", "in.(\"') or true --\")", "eq.$1", "eq.\u{7f}"]
    {
        assert_eq!(rows(&get(&app, "/v1/passengers", &[("name", text)]).await).len(), 0, "{text}");
    }
    assert_eq!(rows(&app.get("/passengerlist").await).len(), 5);
}

#[tokio::test]
async fn every_error_is_reported_with_the_valid_alternatives() {
    let app = crowd(1).await;
    let query = "/v1/passengers?agee=eq.1&age=contains.1&sex=eq.other&fare=lt.cheap&survived=gt.true&name=eq.%00\
         &or=(xyz.eq.1,uuid.eq.1)&order=nme.asc,age.down,age,age&select=uuid,nom&limit=1001&after=x&passengerClass=eq.1.5";
    let answer = app.get(query).await;
    let expected = [
        ("agee", "the parameters are uuid, survived"),
        ("passengerClass", "passengerClass takes a whole number"),
        ("name", "a text without U+0000"),
        ("sex", "male or female"),
        ("age", "age takes eq, neq, gt"),
        ("survived", "survived takes eq, neq, in, is"),
        ("fare", "fare takes a number"),
        ("or", "unknown column \"xyz\"; the columns are uuid, survived"),
        ("or", "uuid takes a uuid"),
        ("order", "unknown column \"nme\""),
        ("order", "column[.asc|.desc]"),
        ("order", "duplicate column age"),
        ("select", "unknown column \"nom\""),
        ("limit", "between 0 and 1000"),
        ("after", "is not a cursor"),
    ];
    let found = faults(&answer);
    for (parameter, detail) in expected {
        let named = found.iter().any(|(name, text)| name == parameter && text.contains(detail));
        assert!(named, "{parameter} {detail}: {found:?}");
    }
    for (query, parameter) in [
        ("age=eq", "age"),
        ("age", "age"),
        ("age=in.(1", "age"),
        ("age=eq.NaN", "age"),
        ("age=eq.inf", "age"),
        ("age=is.true", "age"),
        ("name=like.a%5C", "name"),
        ("and=age.eq.1", "and"),
        ("order=", "order"),
        ("select=", "select"),
        ("limit=-1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("order=age&order=fare", "order"),
    ] {
        for path in ["/v1/passengers", "/passengerlist"] {
            assert_eq!(faults(&app.get(&format!("{path}?{query}")).await)[0].0, parameter, "{query}");
        }
    }
}
