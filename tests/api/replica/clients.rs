//! Clients write and list at random while the standby replays with a delay: no client sees a state older than its own writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Rig, TOKEN};
use crate::harness::{passenger_with, send};

const CLIENTS: u64 = 6;
const STEPS: u64 = 30;

/// The next number of a pseudo-random sequence (splitmix64), so that a run can be repeated.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Writes and lists the rows of one name, which no other client changes, and compares each list with its own writes.
async fn run(rig: Arc<Rig>, client: u64) {
    let (app, name, mut random) = (&rig.app, format!("client {client}"), client);
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let mut token = None;
    for step in 0..STEPS {
        let some = rows.keys().nth(usize::try_from(next(&mut random)).unwrap_or(0) % rows.len().max(1)).cloned();
        let age = i64::try_from(next(&mut random) % 90).expect("small");
        let answer = match (next(&mut random) % 4, some) {
            (0 | 1, _) | (_, None) => {
                let mut body = passenger_with("name", &*name);
                body["age"] = age.into();
                let answer = app.post("/v1/passengers", &body).await;
                rows.insert(answer.json()["uuid"].as_str().expect("a uuid").to_owned(), age);
                answer
            }
            (2, Some(uuid)) => {
                rows.insert(uuid.clone(), age);
                send(app.request(Method::PATCH, &format!("/v1/passengers/{uuid}")).json(&json!({"age": age}))).await
            }
            (_, Some(uuid)) => {
                rows.remove(&uuid);
                app.delete(&format!("/v1/passengers/{uuid}")).await
            }
        };
        assert!(answer.status.is_success(), "{}", answer.body);
        token = answer.headers.get(TOKEN).cloned().or(token);
        let path = match next(&mut random) % 3 {
            // All clients request this list, so it is shared.
            0 => "/v1/passengers?limit=1000".to_owned(),
            1 => format!("/v1/passengers?name=eq.client%20{client}&limit=1000"),
            _ => "/passengerlist".to_owned(),
        };
        let listed = app.request(Method::GET, &path).header(TOKEN, token.as_ref().expect("a token"));
        let listed = send(listed).await;
        let found: BTreeMap<String, i64> = listed
            .expect(StatusCode::OK)
            .json()
            .as_array()
            .expect("rows")
            .iter()
            .filter(|row| row["name"] == *name)
            .map(|row| (row["uuid"].as_str().expect("a uuid").to_owned(), row["age"].as_f64().expect("an age") as i64))
            .collect();
        assert_eq!(found, rows, "client {client}, step {step}, {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_sees_a_state_older_than_its_own_writes() {
    // The standby has replayed a write in time in some cases only.
    let rig = Rig::start(&[("recovery_min_apply_delay", "40ms")], &["--database-read-wait-ms=45"]).await;
    let rig = Arc::new(rig);
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(run(rig.clone(), client))).collect();
    for client in clients {
        client.await.expect("it read its own writes");
    }
}
