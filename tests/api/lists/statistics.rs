//! Statistics: counts, survival rates and means of groups.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{crowd, faults, rows};
use crate::harness::{passenger_with, send};

#[tokio::test]
async fn statistics_are_computed_from_the_rows_of_each_group() {
    let app = crowd(100).await;
    let everybody = rows(&app.get("/passengerlist?fare=gt.5").await);
    let answer = app.get("/v1/passengers/stats?by=passengerClass,sex&fare=gt.5").await.json();
    let groups = answer["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 6);
    for group in groups {
        let of = |row: &&Value| row["passengerClass"] == group["passengerClass"] && row["sex"] == group["sex"];
        let members: Vec<&Value> = everybody.iter().filter(of).collect();
        let mean = |field: &str| {
            let known: Vec<f64> = members.iter().filter_map(|row| row[field].as_f64()).collect();
            known.iter().sum::<f64>() / known.len() as f64
        };
        let survivors = members.iter().filter(|row| row["survived"] == true).count();
        assert_eq!(group["count"], members.len());
        assert_eq!(group["survivors"], survivors);
        assert_eq!(group["survivalRate"], survivors as f64 / members.len() as f64);
        for (field, name) in [("age", "meanAge"), ("fare", "meanFare")] {
            assert!((group[name].as_f64().expect("a mean") - mean(field)).abs() < 1e-9, "{group}");
        }
    }
    let order: Vec<_> = groups.iter().map(|group| (&group["passengerClass"], &group["sex"])).collect();
    assert_eq!(order[..2], [(&json!(1), &json!("female")), (&json!(1), &json!("male"))]);
}

#[tokio::test]
async fn without_a_column_all_rows_are_one_group() {
    let app = crowd(10).await;
    let answer = app.get("/v1/passengers/stats").await.json();
    assert_eq!((answer["groups"][0]["count"].clone(), answer["groups"][1].clone()), (json!(10), Value::Null));
    let fates = app.get("/v1/passengers/stats?by=survived").await.json();
    assert_eq!((&fates["groups"][1]["survived"], &fates["groups"][1]["survivors"]), (&json!(true), &json!(5)));
    let nobody = app.get("/v1/passengers/stats?age=gt.100").await.json();
    let expected =
        json!({"groups": [{"count": 0, "survivors": 0, "survivalRate": null, "meanAge": null, "meanFare": null}]});
    assert_eq!(nobody, expected);
}

#[tokio::test]
async fn fares_of_any_size_have_a_mean() {
    let app = crowd(0).await;
    for fare in [f64::MAX, f64::MAX, f64::MIN_POSITIVE] {
        app.create(&passenger_with("fare", fare)).await;
    }
    let answer = app.get("/v1/passengers/stats").await;
    let mean = answer.expect(StatusCode::OK).json()["groups"][0]["meanFare"].as_f64();
    assert!(mean.is_some_and(|mean| (6e289..7e289).contains(&mean)), "{}", answer.body);
}

#[tokio::test]
async fn statistics_report_invalid_parameters_and_allow_only_get_and_head() {
    let app = crowd(1).await;
    let found = faults(&app.get("/v1/passengers/stats?by=name,sex,sex&limit=3&age=x").await);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["limit", "age", "by", "by"]);
    assert!(found[2].1.contains("the columns are survived, passengerClass, sex, "), "{found:?}");
    for method in [Method::PUT, Method::DELETE, Method::POST] {
        let answer = send(app.request(method, "/v1/passengers/stats")).await;
        answer.expect_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
    send(app.request(Method::HEAD, "/v1/passengers/stats")).await.expect(StatusCode::OK);
}
