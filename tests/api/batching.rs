//! Batching changes the cost of an operation, never its result.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Database, TestApp, passenger, passenger_with};

/// Enough concurrent requests that most of them share a statement.
const TOGETHER: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_starts_after_a_write_was_acknowledged_sees_it_on_either_of_two_servers() {
    let database = Database::migrated().await;
    let conninfo = database.conninfo();
    let servers = Arc::new([TestApp::start_on(&conninfo, &[]).await, TestApp::start_on(&conninfo, &[]).await]);
    let writers = (0..16).map(|writer| {
        let servers = servers.clone();
        tokio::spawn(async move {
            let (mine, other) = (&servers[writer % 2], &servers[(writer + 1) % 2]);
            let uuid = mine.create(&passenger()).await;
            let url = format!("/v1/passengers/{uuid}");
            for round in 0..20 {
                let name = format!("writer {writer} round {round}");
                mine.put(&url, &passenger_with("name", name.as_str())).await.expect(StatusCode::OK);
                for server in [mine, other] {
                    let seen = server.get(&url).await;
                    assert_eq!(seen.expect(StatusCode::OK).json()["name"], name, "a stale answer");
                    let list = server.get("/passengerlist").await;
                    assert!(list.expect(StatusCode::OK).body.contains(&format!("\"{name}\"")), "a stale list");
                }
            }
            mine.delete(&url).await.expect(StatusCode::NO_CONTENT);
            other.get(&url).await.expect_problem(404, "not-found");
        })
    });
    for writer in join_all(writers).await {
        writer.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_carries_its_own_uuid() {
    let app = TestApp::start().await;
    let names: Vec<String> = (0..TOGETHER).map(|n| format!("Number {n}")).collect();
    let created = join_all(names.iter().map(|name| {
        let body = passenger_with("name", name.as_str());
        async { app.post("/v1/passengers", &{ body }).await }
    }))
    .await;
    for (name, answer) in names.iter().zip(&created) {
        assert_eq!(answer.expect(StatusCode::CREATED).json()["name"], **name, "a passenger of another request");
    }
    let urls: Vec<&str> = created.iter().map(|answer| answer.header("location")).collect();
    for _ in 0..5 {
        for (answer, stored) in join_all(urls.iter().map(|url| app.get(url))).await.iter().zip(&created) {
            assert_eq!(answer.expect(StatusCode::OK).body, stored.body, "the answer of another request");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_keys_in_a_batch_are_all_answered_and_only_missing_rows_are_404() {
    let app = TestApp::start().await;
    let uuid = app.create(&passenger()).await;
    let (there, missing) = (format!("/v1/passengers/{uuid}"), format!("/v1/passengers/{}", uuid::Uuid::now_v7()));
    let answers = join_all((0..TOGETHER).map(|n| app.get(if n % 3 == 0 { &missing } else { &there }))).await;
    for (n, answer) in answers.iter().enumerate() {
        let expected = if n % 3 == 0 { StatusCode::NOT_FOUND } else { StatusCode::OK };
        answer.expect(expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_deletes_of_one_passenger_exactly_one_succeeds() {
    let app = TestApp::start().await;
    for _ in 0..10 {
        let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
        let answers = join_all((0..TOGETHER).map(|_| app.delete(&url))).await;
        let succeeded = answers.iter().filter(|answer| answer.status == StatusCode::NO_CONTENT).count();
        let missed = answers.iter().filter(|answer| answer.status == StatusCode::NOT_FOUND).count();
        assert_eq!((succeeded, missed), (1, TOGETHER - 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replaces_of_one_passenger_each_answer_their_own_state_and_one_remains() {
    let app = TestApp::start().await;
    let url = format!("/v1/passengers/{}", app.create(&passenger()).await);
    let answers = join_all((0..TOGETHER).map(|n| {
        let body = passenger_with("name", format!("Number {n}"));
        let url = &url;
        let app = &app;
        async move { app.put(url, &body).await }
    }))
    .await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.expect(StatusCode::OK).json()["name"], format!("Number {n}"));
    }
    let last = app.get(&url).await.json()["name"].clone();
    assert!(answers.iter().any(|answer| answer.json()["name"] == last), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_violates_a_constraint_never_fails_others_in_its_batch() {
    let app = TestApp::start().await;
    // A constraint of this database alone: rows that pass the server's validation are refused by the table.
    let client = app.database.as_ref().expect("own database").client().await;
    let rule = "alter table passengers drop constraint passengers_name; \
                alter table passengers add constraint passengers_name check (name <> 'refused')";
    client.batch_execute(rule).await.expect("altered");
    for _ in 0..5 {
        let answers = join_all((0..TOGETHER).map(|n| {
            let body = passenger_with("name", if n == 7 { "refused" } else { "accepted" });
            let app = &app;
            async move { app.post("/v1/passengers", &body).await }
        }))
        .await;
        for (n, answer) in answers.iter().enumerate() {
            if n == 7 {
                assert_eq!(answer.pointers(), ["/name"]);
            } else {
                answer.expect(StatusCode::CREATED);
            }
        }
    }
    let list = app.get("/passengerlist").await.json();
    assert_eq!(list.as_array().map(Vec::len), Some(5 * (TOGETHER - 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_when_connections_are_lost_during_batches() {
    let app = Arc::new(TestApp::start().await);
    let uuids = join_all((0..TOGETHER).map(|_| async { app.create(&passenger()).await })).await;
    let client = app.database.as_ref().expect("own database").client().await;
    // A list long enough that connections are lost between its rows.
    client
        .batch_execute(
            "insert into passengers select gen_random_uuid(), true, 1, 'Crowd', 'female', null, 0, 0, 0.5 \
             from generate_series(1, 1900)",
        )
        .await
        .expect("inserted");
    let stop = Arc::new(AtomicBool::new(false));
    let lists: Vec<_> = (0..4)
        .map(|_| {
            let (app, stop) = (app.clone(), stop.clone());
            tokio::spawn(async move {
                let mut whole = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = app.get("/passengerlist").await;
                    if answer.status == StatusCode::OK {
                        let list = answer.json();
                        let uuids = list.as_array().expect("an array").iter().map(|row| row["uuid"].to_string());
                        assert_eq!(uuids.collect::<HashSet<_>>().len(), 1900 + TOGETHER);
                        assert_eq!(list.as_array().map(Vec::len), Some(1900 + TOGETHER), "a row was returned twice");
                        whole += 1;
                    }
                }
                whole
            })
        })
        .collect();
    let readers: Vec<_> = uuids
        .into_iter()
        .map(|uuid| {
            let (app, stop) = (app.clone(), stop.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = app.get(&format!("/v1/passengers/{uuid}")).await;
                    match answer.status {
                        StatusCode::OK => {
                            assert_eq!(answer.json()["uuid"], json!(uuid), "the answer of another request");
                        }
                        StatusCode::SERVICE_UNAVAILABLE => {}
                        other => panic!("{other}: {}", answer.body),
                    }
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for _ in 0..50 {
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                    where datname = current_database() and pid <> pg_backend_pid()";
        client.query_one(kill, &[]).await.expect("terminated");
        app.get("/passengerlist").await; // whatever its status: meanwhile the concurrent clients can finish a list
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("every request was answered") > 0);
    }
    let whole: usize =
        join_all(lists).await.into_iter().map(|list| list.expect("every list was complete or refused")).sum();
    assert!(whole > 0);
}
