//! Read your writes: every kind of change is visible in later lists with its token while the standby replays nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Rig, TOKEN};
use crate::harness::{Answer, passenger_with, send};
use crate::transfer::{program_at, succeeded};

/// Waits only briefly for the standby: its replay is paused, and a longer wait would be in vain.
const HELD: &[&str] = &["--database-read-max-lag=1h", "--database-read-wait-ms=20"];

fn token(answer: &Answer) -> String {
    assert!(answer.status.is_success(), "{}", answer.body);
    answer.header(TOKEN).to_owned()
}

/// Every way to list passengers; none of the responses shows which server was read.
const LISTS: [&str; 4] = [
    "/passengerlist",
    "/v1/passengers?order=name.asc&limit=1000",
    "/v1/passengers?name=like.*&limit=1000&select=name,age,survived",
    "/v1/passengers/stats?by=passengerClass",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_visible_in_lists_requested_with_its_token() {
    let rig = Rig::start(&[], HELD).await;
    let app = &rig.app;
    let named = |name: &str, class: i64| {
        let mut body = passenger_with("name", name);
        body["passengerClass"] = class.into();
        body
    };
    let kept = app.create(&named("kept", 1)).await;
    let gone = app.create(&named("gone", 1)).await;
    rig.hold().await;
    let mut stale = Vec::new();
    for path in LISTS {
        stale.push(rig.get(path, None).await.body);
    }
    let kept = format!("/v1/passengers/{kept}");
    let key = ("idempotency-key", "7b5b3f3f-5f0c-4f39-9f5e-0d3f0f1f2f3f");
    let bulk = json!([named("many", 2), named("many", 3)]);
    let post = |path: &str, body: &Value| app.request(Method::POST, path).json(body);
    let changes = [
        ("a creation", post("/v1/passengers", &named("new", 2))),
        ("a keyed creation", post("/v1/passengers", &named("once", 3)).header(key.0, key.1)),
        ("many at once", post("/v1/passengers", &bulk)),
        ("a replacement", app.request(Method::PUT, &kept).json(&named("put", 3))),
        ("a patch", app.request(Method::PATCH, &kept).json(&json!({"passengerClass": 2, "name": "patched"}))),
        ("a deletion", app.request(Method::DELETE, &format!("/v1/passengers/{gone}"))),
    ];
    let mut seen = stale.clone();
    let mut newest = String::new();
    for (what, change) in changes {
        newest = token(&send(change).await);
        for (place, path) in LISTS.iter().enumerate() {
            let fresh = rig.get(path, Some(&newest)).await.body;
            assert_ne!(fresh, seen[place], "{what} is missing in {path}");
            assert_eq!(rig.get(path, None).await.body, stale[place], "{path} without a token is the standby's");
            seen[place] = fresh;
        }
    }
    let replayed = send(post("/v1/passengers", &named("once", 3)).header(key.0, key.1)).await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    assert_eq!(
        rig.get(LISTS[0], Some(&token(&replayed))).await.body,
        seen[0],
        "a replayed response must have a token as well"
    );
    let counted =
        send(app.request(Method::GET, "/v1/passengers?limit=1").header("prefer", "count=exact").header(TOKEN, &newest));
    assert_eq!(counted.await.header("content-range"), "0-0/5");
    let counted = send(app.request(Method::GET, "/v1/passengers?limit=1").header("prefer", "count=exact"));
    assert_eq!(counted.await.header("content-range"), "0-0/2");

    // A refusal returns the position it was based on; a request with an invalid body returns none.
    let again = app.delete(&format!("/v1/passengers/{gone}")).await;
    assert_eq!(again.expect(StatusCode::NOT_FOUND).headers.get(TOKEN).map(|_| ()), Some(()));
    assert!(app.post("/v1/passengers", &json!({})).await.headers.get(TOKEN).is_none());
    assert!(app.get(&kept).await.headers.get(TOKEN).is_none(), "a read changes nothing");
    let malformed = send(app.request(Method::GET, "/v1/passengers").header(TOKEN, "yesterday")).await;
    malformed.expect_problem(400, "invalid-header");

    // The page after one read on the primary is as current, although only its URL is followed.
    let (mut names, mut next) = (Vec::new(), Some("/v1/passengers?limit=2&select=name".to_owned()));
    let mut sent = Some(newest.as_str());
    while let Some(page) = next {
        let answer = rig.get(&page, sent.take()).await;
        names.extend(answer.json().as_array().expect("rows").iter().map(|row| row["name"].to_string()));
        let links =
            answer.headers.get("link").map(|links| links.to_str().expect("ASCII").to_owned()).unwrap_or_default();
        next = links
            .split(", ")
            .find(|link| link.contains("rel=\"next\""))
            .map(|link| link.split(['<', '>']).nth(1).expect("an address").to_owned());
    }
    names.sort();
    assert_eq!(names, ["\"many\"", "\"many\"", "\"new\"", "\"once\"", "\"patched\""], "each unchanged row once");

    rig.go_on().await;
    rig.catch_up().await;
    for (place, path) in LISTS.iter().enumerate() {
        assert_eq!(rig.get(path, None).await.body, seen[place], "the standby must show the row once it is replayed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_air_quality_and_restored_rows_are_visible_with_their_tokens() {
    let description = crate::subjects::flag();
    let rig = Rig::start(&[], &[HELD, &[&*description]].concat()).await;
    let app = &rig.app;
    let step = "/v1/steps?component=api&version=1&owner=ann&status=";
    send(app.request(Method::POST, &format!("{step}first"))).await.expect(StatusCode::CREATED);
    let passenger = app.create(&passenger_with("name", "before")).await;
    let air = rig.get("/v1/air-quality", None).await.body;
    rig.hold().await;

    let paths =
        ["/v1/steps?format=json", "/v1/steps?limit=10", "/v1/steps/durations", "/v1/steps/durations?summary=true"];
    let mut before = Vec::new();
    for path in paths {
        before.push(rig.get(path, None).await.body);
    }
    let recorded = send(app.request(Method::POST, &format!("{step}second"))).await;
    for (path, before) in paths.iter().zip(&before) {
        assert_ne!(&rig.get(path, Some(&token(&recorded))).await.body, before, "{path}");
        assert_eq!(&rig.get(path, None).await.body, before, "{path} without a token is the standby's");
    }
    let first = rig.get("/v1/steps?format=json&limit=1", Some(&token(&recorded))).await;
    let link = first.header("link").split(['<', '>']).nth(1).expect("an address").to_owned();
    assert!(rig.get(&link, None).await.body.contains("second"), "the next page must be as current");

    let path = format!("/v1/passengers/{passenger}");
    let names = "/v1/passengers?select=name";
    app.delete(&path).await.expect(StatusCode::NO_CONTENT);
    let history = app.get(&format!("{path}/history")).await;
    history.expect(StatusCode::OK);
    assert_eq!(history.json()[0]["operation"], "delete", "histories must be read on the primary");
    let version = history.json()[0]["versionBefore"].clone();
    let restored = app.post(&format!("{path}/restore"), &json!({"version": version})).await;
    assert!(rig.get(names, Some(&token(&restored))).await.body.contains("before"));

    // An importing client has no response of the service: the generation makes its rows visible.
    let url = format!("host={} user=postgres dbname=postgres", super::socket(&rig.primary));
    let csv = "id_entity,timeinstant,so2,no2,co,o3,pm10,pm2_5\naq_new,2024-01-01T00:00:00Z,1,2,3,4,5,6\n";
    succeeded(tokio::task::block_in_place(|| program_at(&["import", "--resource", "air-quality", "-"], &url, csv)));
    crate::harness::eventually(|| async {
        let answer = rig.get("/v1/air-quality", None).await;
        if answer.body.contains("aq_new") { Ok(()) } else { Err(answer.body) }
    })
    .await;
    assert_ne!(rig.get("/v1/air-quality", None).await.body, air);
}
