//! Access tokens over HTTP: the response to each, and its principal.

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::hostile_tokens::{all, document};
use super::key_server::{KeyServer, Mode};
use super::signer::{Signer, ec, ed, rsa, rsa_pss};
use super::{AUDIENCE, ISSUER, claims, with};
use crate::harness::{Answer, TestApp, eventually, send};

const LIST: &str = "/v1/passengers?limit=1";

/// A server that accepts tokens of an issuer with these keys, and requires a token for everything.
async fn server_with_issuer(keys: &KeyServer) -> TestApp {
    TestApp::start_with(&[
        "--auth=on",
        &format!("--auth-issuer={ISSUER}"),
        &format!("--auth-audience={AUDIENCE}"),
        &format!("--auth-jwks-url={}", keys.keys_url()),
    ])
    .await
}

async fn get(app: &TestApp, path: &str, token: &HeaderValue) -> Answer {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.as_bytes()].concat()).expect("a header's value");
    value.set_sensitive(true);
    send(app.request(Method::GET, path).header("authorization", value)).await
}

async fn get_with(app: &TestApp, path: &str, token: &str) -> Answer {
    get(app, path, &HeaderValue::from_str(token).expect("a header's value")).await
}

#[tokio::test]
async fn a_token_of_each_algorithm_grants_its_scopes() {
    let keys = KeyServer::start(&[rsa(), rsa_pss(), ec(), ed()].map(Signer::jwk)).await;
    let app = server_with_issuer(&keys).await;
    for signer in [rsa(), rsa_pss(), ec(), ed()] {
        let token = signer.token(&claims());
        // The second time the token is in the cache.
        for _ in 0..2 {
            get_with(&app, LIST, &token).await.expect(StatusCode::OK);
        }
        let deleted = app.request(Method::DELETE, "/v1/passengers/018f0000-0000-7000-8000-000000000000");
        let answer = send(deleted.bearer_auth(&token)).await;
        answer.expect_problem(403, "insufficient-scope");
        let all = signer.token(&with("scope", json!("*:read")));
        get_with(&app, LIST, &all).await.expect(StatusCode::OK);
        let none = signer.token(&with("scope", json!("openid")));
        get_with(&app, LIST, &none).await.expect_problem(403, "insufficient-scope");
    }
    assert_eq!(keys.requests(), 1);
}

#[tokio::test]
async fn every_hostile_token_is_answered_with_401() {
    let keys = KeyServer::start(&[]).await;
    keys.document("/keys", &document());
    let app = server_with_issuer(&keys).await;
    get_with(&app, LIST, &ec().token(&claims())).await.expect(StatusCode::OK);
    let mut sent = 0;
    for hostile in all() {
        // Tokens that are not valid or too long for a header are refused before they are verified.
        let Ok(token) = HeaderValue::from_bytes(hostile.token.as_bytes()) else { continue };
        if hostile.token.is_empty() || hostile.token.len() > 9000 || hostile.token.trim_ascii() != hostile.token {
            continue;
        }
        let answer = get(&app, LIST, &token).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}: {}", hostile.kind, answer.body);
        let problem = answer.expect_problem(401, "unauthenticated");
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{}", hostile.kind);
        let shown = problem["detail"].as_str().expect("a text");
        let part = hostile.token.rsplit('.').next().expect("a part");
        assert!(part.len() < 8 || !shown.contains(part), "{}: {shown}", hostile.kind);
        sent += 1;
    }
    assert!(sent >= 400, "{sent}");
    assert_eq!(keys.requests(), 1, "no token may cause another key request within the pause");
    get_with(&app, LIST, &ec().token(&claims())).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_cannot_be_verified_is_answered_with_503() {
    let keys = KeyServer::start(&[]).await;
    keys.set(Mode::Raw(String::new()));
    let app = server_with_issuer(&keys).await;
    let answer = get_with(&app, LIST, &ec().token(&claims())).await;
    answer.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    // Routes that need no token are answered, and tokens that are invalid with any key are refused.
    app.get("/readyz").await.expect(StatusCode::OK);
    get_with(&app, LIST, &ec().token(&with("aud", Value::Null))).await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_list_in_flight_when_its_token_expires_is_sent_completely() {
    const ROWS: usize = 100_000;
    let keys = KeyServer::start(&[ec().jwk()]).await;
    let app = TestApp::start_with(&[
        "--auth=on",
        &format!("--auth-issuer={ISSUER}"),
        &format!("--auth-audience={AUDIENCE}"),
        &format!("--auth-jwks-url={}", keys.keys_url()),
        "--auth-leeway=0s",
    ])
    .await;
    let client = app.database.as_ref().expect("own database").client().await;
    let fill = format!(
        "insert into passengers select gen_random_uuid(), true, 1, 'Number ' || n, 'male', null, 0, 0, 0 \
         from generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&fill).await.expect("filled");
    // More than the buffers between server and client can hold, so most of it is sent after the token has expired.
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let token = ec().token(&with("exp", json!(begun.as_secs() + 5)));
    let mut list = app.request(Method::GET, "/passengerlist").bearer_auth(&token).send().await.expect("answered");
    assert_eq!(list.status(), StatusCode::OK);
    let mut text = list.chunk().await.expect("a beginning").expect("not empty").to_vec();
    eventually(|| async {
        let answer = get_with(&app, LIST, &token).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(format!("still {}", answer.status)) }
    })
    .await;
    while let Some(chunk) = list.chunk().await.expect("it goes on") {
        text.extend_from_slice(&chunk);
    }
    let rows: Vec<Value> = serde_json::from_slice(&text).expect("a whole array");
    assert_eq!(rows.len(), ROWS);
}

#[tokio::test]
async fn the_metadata_contain_the_issuer_and_the_scopes_that_routes_require() {
    let keys = KeyServer::start(&[ec().jwk()]).await;
    let app = server_with_issuer(&keys).await;
    let metadata = app.get("/.well-known/oauth-protected-resource").await.json();
    assert_eq!(metadata["authorization_servers"], json!([ISSUER]));
    let document = app.get("/openapi.json").await.json();
    let mut asked = std::collections::BTreeSet::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("an item").values() {
            for requirement in operation["security"].as_array().into_iter().flatten() {
                let scopes = requirement["bearer"].as_array().into_iter().flatten();
                asked.extend(scopes.map(|scope| scope.as_str().expect("a text").to_owned()));
            }
        }
    }
    asked.remove("admin");
    asked.remove("");
    assert!(asked.contains("air-quality:read") && !asked.contains("air-quality:create"), "{asked:?}");
    assert_eq!(metadata["scopes_supported"], json!(asked));
}
