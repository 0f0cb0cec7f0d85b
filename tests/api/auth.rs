//! Authorization: every route without a token, with the wrong token and with the right one; expiry and revocation; rows that
//! belong to a principal.

use std::time::Duration;

use pycrudapi::auth::scope::{Access, Scopes};
use pycrudapi::auth::tokens::{self, TokenSpec, store};
use pycrudapi::docs::endpoints;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Database, TestApp, eventually, passenger, resources, send};

const ON: &str = "--auth=on";

/// A token for these scopes, and its id.
async fn token(app: &TestApp, scopes: &str) -> (String, Uuid) {
    token_in(app.database.as_ref().expect("the test's own"), scopes, None).await
}

async fn token_in(database: &Database, scopes: &str, lifetime: Option<Duration>) -> (String, Uuid) {
    let wanted = TokenSpec { name: "test".to_owned(), scopes: scopes.parse().expect("scopes"), lifetime };
    let (token, listed) = tokens::create(&database.client().await, &wanted, None).await.expect("made");
    (token.reveal().to_owned(), listed.id)
}

fn with_bearer(request: RequestBuilder, token: &str) -> RequestBuilder {
    request.header(AUTHORIZATION, format!("Bearer {token}"))
}

async fn get(app: &TestApp, path: &str, token: &str) -> Answer {
    send(with_bearer(app.request(Method::GET, path), token)).await
}

/// A request that reaches its route, whatever the result.
fn request(app: &TestApp, method: &str, template: &str) -> RequestBuilder {
    let path = template.replace("{uuid}", &Uuid::now_v7().to_string()).replace("{id}", &Uuid::now_v7().to_string());
    let path = path.replace("{code}", "not-found").replace("{name}", "passengers");
    let request = app.request(method.parse().expect("a method"), &path);
    match method {
        "POST" | "PUT" | "PATCH" => request.header(CONTENT_TYPE, "application/json").body("{}"),
        _ => request,
    }
}

#[track_caller]
fn expect_challenge(answer: &Answer, scope: &str) -> String {
    let challenge = answer.header(WWW_AUTHENTICATE.as_str()).to_owned();
    assert!(challenge.starts_with("Bearer realm=\"pycrudapi\""), "{challenge}");
    assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{challenge}");
    challenge
}

#[tokio::test]
async fn every_route_requires_exactly_its_scope() {
    let app = TestApp::start_with(&[ON]).await;
    let (admin, _) = token(&app, "admin").await;
    let mut guarded = 0;
    for endpoint in endpoints::all(resources()) {
        for (method, access) in endpoint.methods {
            let right = access.to_string();
            for template in endpoint.templates {
                let named = format!("{method} {template}");
                let without = send(request(&app, method, template)).await;
                if *access == Access::Anybody {
                    without.expect(StatusCode::OK);
                    send(with_bearer(request(&app, method, template), "wrong"))
                        .await
                        .expect_problem(401, "unauthenticated");
                    continue;
                }
                if *access == Access::Public {
                    assert!(![401, 403].contains(&without.status.as_u16()), "{named}: {}", without.status);
                    // An invalid token is ignored where none is required.
                    let wrong = send(with_bearer(request(&app, method, template), "wrong")).await;
                    assert_eq!(wrong.status, without.status, "{named}");
                    continue;
                }
                guarded += 1;
                without.expect_problem(401, "unauthenticated");
                assert!(!expect_challenge(&without, &right).contains("error="), "{named}");
                let others = match access {
                    Access::Scope(resource, action) => {
                        let actions = ["read", "create", "update", "delete"];
                        let others = actions.iter().filter(|name| **name != action.name());
                        let same = others.map(|name| format!("{resource}:{name}")).collect::<Vec<_>>();
                        [same.join(" "), "other:* tokens:*".to_owned()].join(" ")
                    }
                    _ => "*:*".to_owned(),
                };
                let (other, _) = token(&app, &others).await;
                let refused = send(with_bearer(request(&app, method, template), &other)).await;
                refused.expect_problem(403, "insufficient-scope");
                assert!(expect_challenge(&refused, &right).contains("insufficient_scope"), "{named}");
                let (exact, _) = token(&app, &right).await;
                for good in [&exact, &admin] {
                    let through = send(with_bearer(request(&app, method, template), good)).await;
                    let status = through.status.as_u16();
                    assert!(
                        ![401, 403, 405, 500, 503].contains(&status),
                        "{named}: {} {}",
                        through.status,
                        through.body
                    );
                }
            }
        }
    }
    assert!(guarded > 20, "{guarded}");
}

#[tokio::test]
async fn without_the_scope_nothing_is_changed_or_disclosed() {
    let app = TestApp::start_with(&[ON]).await;
    let (admin, _) = token(&app, "admin").await;
    let (writer, _) = token(&app, "passengers:create").await;
    let created = send(with_bearer(app.request(Method::POST, "/v1/passengers"), &writer).json(&passenger())).await;
    created.expect(StatusCode::CREATED);
    let path = format!("/v1/passengers/{}", created.json()["uuid"].as_str().expect("a uuid"));
    let gone = format!("/v1/passengers/{}", Uuid::now_v7());
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        let refused = async |path: &str, token: Option<&str>| {
            // One request id for all, because problems repeat it.
            let request = app.request(method.clone(), path).header("x-request-id", "one").json(&json!({"age": 1}));
            let answer =
                send(token.map_or(request.try_clone().expect("short"), |token| with_bearer(request, token))).await;
            (answer.status, answer.body)
        };
        // The same answer for an existing row, a missing row and an invalid uuid.
        for token in [None, Some(writer.as_str())] {
            let there = refused(&path, token).await;
            assert!([401, 403].contains(&there.0.as_u16()));
            assert_eq!(there, refused(&gone, token).await);
            assert_eq!(there, refused("/v1/passengers/nonsense", token).await);
        }
    }
    let row = get(&app, &path, &admin).await;
    assert_eq!(row.json()["name"], passenger()["name"]);
    assert_eq!(row.json()["age"], passenger()["age"]);
}

#[tokio::test]
async fn invalid_credentials_are_refused_with_the_reason() {
    let app = TestApp::start_with(&[ON, "--auth-anonymous-scopes=passengers:read"]).await;
    let (good, _) = token(&app, "*:read").await;
    let mut mistyped = good.clone();
    mistyped.replace_range(20..21, if &good[20..21] == "a" { "b" } else { "a" });
    let forms = ["Bearer", "Basic dXNlcjpwYXNz", "Bearer a b", "Token abc", &good];
    let unknown =
        ["abc", "a.b.c", &mistyped, "pycrudapi_", &good[..good.len() - 1]].map(|token| format!("Bearer {token}"));
    for credentials in forms.iter().copied().chain(unknown.iter().map(String::as_str)) {
        let answer = send(app.request(Method::GET, "/v1/passengers").header(AUTHORIZATION, credentials)).await;
        let problem = answer.expect_problem(401, "unauthenticated");
        assert!(expect_challenge(&answer, "passengers:read").contains("error=\"invalid_token\""), "{credentials}");
        let sent = credentials.split_once(' ').map_or(credentials, |(_, sent)| sent);
        assert!(sent.len() < 8 || !problem.to_string().contains(sent), "{problem}");
    }
    let twice = app.request(Method::GET, "/v1/passengers").header(AUTHORIZATION, format!("Bearer {good}"));
    send(with_bearer(twice, &good)).await.expect_problem(401, "unauthenticated");
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = app.request(Method::GET, "/v1/steps").header(AUTHORIZATION, format!("{scheme} {good}"));
        send(request).await.expect(StatusCode::OK);
    }
    // Without credentials, the anonymous scopes apply.
    app.get("/v1/passengers").await.expect(StatusCode::OK);
    app.get("/v1/steps").await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_server() {
    let database = Database::migrated().await;
    let (one, other) =
        (TestApp::start_on(&database.conninfo(), &[ON]).await, TestApp::start_on(&database.conninfo(), &[ON]).await);
    let (admin, _) = token_in(&database, "admin", None).await;
    let (token, id) = token_in(&database, "passengers:read", None).await;
    for app in [&one, &other, &one] {
        get(app, "/v1/passengers", &token).await.expect(StatusCode::OK);
    }
    let revoke = with_bearer(one.request(Method::DELETE, &format!("/v1/tokens/{id}")), &admin);
    send(revoke).await.expect(StatusCode::NO_CONTENT);
    for app in [&one, &other] {
        eventually(|| async {
            let answer = get(app, "/v1/passengers", &token).await;
            if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
        })
        .await;
        let answer = get(app, "/v1/passengers", &token).await;
        assert!(expect_challenge(&answer, "passengers:read").contains("the token was revoked"));
    }
    get(&other, "/v1/passengers", &admin).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn without_change_notifications_each_request_checks_its_token_in_the_database() {
    let app = TestApp::start_with(&[ON]).await;
    let database = app.database.as_ref().expect("the test's own");
    let (token, id) = token(&app, "passengers:read").await;
    get(&app, "/v1/passengers", &token).await.expect(StatusCode::OK);
    let client = database.client().await;
    // No LISTEN connection can be opened while the database refuses connections; pooled connections stay open.
    let name = client.query_one("select current_database()", &[]).await.expect("a name").get::<_, String>(0);
    let elsewhere = Database::empty().await;
    let other = elsewhere.client().await;
    other.batch_execute(&format!("alter database {name} allow_connections false")).await.expect("closed");
    let ended = client
        .query("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and (query like 'listen%' or query like '%api_tokens_generation%')", &[])
        .await
        .expect("ended");
    assert!(!ended.is_empty());
    eventually(|| async {
        // No notification is sent: session_replication_role = replica disables the trigger.
        client.batch_execute("set session_replication_role = replica").await.expect("a superuser");
        client.execute("update api_tokens set revoked_at = now() where id = $1", &[&id]).await.expect("revoked");
        let answer = get(&app, "/v1/passengers", &token).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_although_the_connection_with_notifications_is_silent() {
    let app = TestApp::start_with(&[ON]).await;
    let (token, id) = token(&app, "passengers:read").await;
    get(&app, "/v1/passengers", &token).await.expect(StatusCode::OK);
    let client = app.database.as_ref().expect("the test's own").client().await;
    let listening = "select pid from pg_stat_activity where datname = current_database() \
                     and (query like '%from api_tokens_generation' or query = 'listen api_tokens_changed')";
    let pid = client.query_one(listening, &[]).await.expect("one connection").get::<_, i32>(0).to_string();
    let signal = |name: &str| std::process::Command::new("kill").args([name, &pid]).status().expect("kill").success();
    // The backend stays connected and does not respond.
    assert!(signal("-STOP"));
    client.execute("update api_tokens set revoked_at = now() where id = $1", &[&id]).await.expect("revoked");
    let revoked = std::time::Instant::now();
    eventually(|| async {
        let answer = get(&app, "/v1/passengers", &token).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    let lasted = revoked.elapsed();
    assert!(signal("-CONT"));
    // The documented limit is one second; a loaded machine is allowed five times as long.
    assert!(lasted < Duration::from_secs(5), "{lasted:?}");
}

#[tokio::test]
async fn a_token_is_refused_after_it_expires() {
    let app = TestApp::start_with(&[ON]).await;
    let database = app.database.as_ref().expect("the test's own");
    let (token, id) = token_in(database, "passengers:read", Some(Duration::from_secs(3600))).await;
    get(&app, "/v1/passengers", &token).await.expect(StatusCode::OK);
    let (short, _) = token_in(database, "passengers:read", Some(Duration::from_millis(300))).await;
    eventually(|| async {
        let answer = get(&app, "/v1/passengers", &short).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    let answer = get(&app, "/v1/passengers", &short).await;
    assert!(expect_challenge(&answer, "passengers:read").contains("the token has expired"));
    // A manual change takes effect as well.
    let client = database.client().await;
    client.execute("update api_tokens set expires_at = now() where id = $1", &[&id]).await.expect("changed");
    eventually(|| async {
        let answer = get(&app, "/v1/passengers", &token).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn uses_are_counted_without_a_write_for_each() {
    let mut app = TestApp::start_with(&[ON]).await;
    let (token, id) = token(&app, "passengers:read").await;
    let before = app.database.as_ref().expect("the test's own").client().await;
    let changes = "select n_tup_upd::bigint from pg_stat_get_tuples_updated('api_tokens'::regclass) as n_tup_upd";
    for _ in 0..50 {
        get(&app, "/v1/passengers?limit=1", &token).await.expect(StatusCode::OK);
    }
    app.stop().await;
    let listed = store::list(&before).await.expect("listed");
    let listed = listed.iter().find(|listed| listed.id == id).expect("it is there");
    assert_eq!(listed.uses, 50);
    assert!(listed.last_used_at.is_some());
    let written: i64 = before.query_one(changes, &[]).await.expect("counted").get(0);
    assert!(written < 10, "{written}");
}

#[tokio::test]
async fn an_administrator_creates_rotates_and_revokes_tokens() {
    let app = TestApp::start_with(&[ON]).await;
    let (admin, admin_id) = token(&app, "admin").await;
    let post =
        async |path: &str, body: &Value| send(with_bearer(app.request(Method::POST, path), &admin).json(body)).await;
    let made = post("/v1/tokens", &json!({"name": "ci", "scopes": ["steps:create", "passengers:*"]})).await;
    made.expect(StatusCode::CREATED);
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.json();
    assert_eq!(made["scopes"], json!(["steps:create", "passengers:*"]));
    assert_eq!(made["createdBy"], format!("token:{admin_id}"));
    assert!(made["expiresAt"].is_string(), "a token expires unless `never` is requested: {made}");
    let (first, id) =
        (made["token"].as_str().expect("a token").to_owned(), made["id"].as_str().expect("an id").to_owned());
    get(&app, "/v1/passengers", &first).await.expect(StatusCode::OK);

    let rotated = post(&format!("/v1/tokens/{id}/rotate"), &json!({})).await;
    rotated.expect(StatusCode::CREATED);
    let second = rotated.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(rotated.json()["scopes"], made["scopes"]);
    get(&app, "/v1/passengers", &second).await.expect(StatusCode::OK);
    eventually(|| async {
        let answer = get(&app, "/v1/passengers", &first).await;
        if answer.status == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    post(&format!("/v1/tokens/{id}/rotate"), &json!({})).await.expect_problem(404, "not-found");
    let id = rotated.json()["id"].as_str().expect("an id").to_owned();
    let third = post(&format!("/v1/tokens/{id}/rotate"), &json!({"overlap": "1h"})).await;
    third.expect(StatusCode::CREATED);
    get(&app, "/v1/passengers", &second).await.expect(StatusCode::OK);
    // A client that lost the response rotates again; only the previous token expires earlier.
    let fourth = post(&format!("/v1/tokens/{id}/rotate"), &json!({"overlap": "1m"})).await.json();
    let lasts = |token: &Value| {
        let at = |key: &str| token[key].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
        at("expiresAt").duration_since(at("createdAt"))
    };
    assert_eq!(lasts(&fourth), lasts(&made));

    let list = get(&app, "/v1/tokens", &admin).await;
    list.expect(StatusCode::OK);
    for secret in [&first, &second, &admin] {
        assert!(!list.body.contains(secret.as_str()), "a token is shown once");
    }
    let states: Vec<Value> =
        list.json().as_array().expect("a list").iter().map(|token| token["state"].clone()).collect();
    assert_eq!(states, ["active", "revoked", "active", "active", "active"]);

    for (body, pointer) in [
        (json!({}), "/name"),
        (json!({"name": "", "scopes": ["admin"]}), "/name"),
        (json!({"name": "ci\u{202e}nimda", "scopes": ["admin"]}), "/name"),
        (json!({"name": "ci\u{2066}", "scopes": ["admin"]}), "/name"),
        (json!({"name": "c\u{2028}i", "scopes": ["admin"]}), "/name"),
        (json!({"name": "x", "scopes": []}), "/scopes"),
        (json!({"name": "x", "scopes": "admin"}), "/scopes"),
        (json!({"name": "x", "scopes": ["passengers:write"]}), "/scopes"),
        (json!({"name": "x", "scopes": ["nowhere:read"]}), "/scopes"),
        (json!({"name": "x", "scopes": ["passengers:read steps:read"]}), "/scopes"),
        (json!({"name": "x", "scopes": ["admin"], "expires": 90}), "/expires"),
        (json!({"name": "x", "scopes": ["admin"], "expires": "soon"}), "/expires"),
        (json!({"name": "x", "scopes": ["admin"], "token": "mine"}), "/token"),
    ] {
        let answer = post("/v1/tokens", &body).await;
        answer.expect_problem(422, "invalid-fields");
        assert!(answer.pointers().contains(&pointer.to_owned()), "{body}: {}", answer.body);
    }
    post("/v1/tokens/nonsense/rotate", &json!({})).await.expect_problem(400, "invalid-uuid");
    let revoke = with_bearer(app.request(Method::DELETE, &format!("/v1/tokens/{}", Uuid::now_v7())), &admin);
    send(revoke).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn no_token_is_created_while_authentication_is_off() {
    let app = TestApp::start().await;
    app.get("/v1/tokens").await.expect_problem(404, "not-found");
    app.post("/v1/tokens", &json!({"name": "x", "scopes": ["admin"]})).await.expect_problem(404, "not-found");
    let client = app.database.as_ref().expect("the test's own").client().await;
    assert!(store::list(&client).await.expect("listed").is_empty());
    assert_eq!(app.get("/readyz").await.json()["auth"], "off");
}

#[tokio::test]
async fn tokens_are_listed_in_pages() {
    let app = TestApp::start_with(&[ON]).await;
    let (admin, _) = token(&app, "admin").await;
    for _ in 0..4 {
        token(&app, "steps:read").await;
    }
    let (mut path, mut ids, mut sizes) = ("/v1/tokens?limit=2".to_owned(), Vec::new(), Vec::new());
    loop {
        let page = get(&app, &path, &admin).await;
        let tokens = page.expect(StatusCode::OK).json();
        let tokens = tokens.as_array().expect("a list");
        sizes.push(tokens.len());
        ids.extend(tokens.iter().map(|token| token["id"].as_str().expect("an id").to_owned()));
        let Some(link) = page.headers.get("link") else { break };
        let link = link.to_str().expect("ASCII");
        path = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect(link).to_owned();
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert!(ids.is_sorted() && ids.len() == 5, "{ids:?}");
    assert_eq!(get(&app, "/v1/tokens?limit=5", &admin).await.headers.get("link"), None);
    for wrong in ["limit=0", "limit=1001", "limit=x", "after=x", "order=name"] {
        get(&app, &format!("/v1/tokens?{wrong}"), &admin).await.expect_problem(400, "invalid-query");
    }
}

#[tokio::test]
async fn idempotency_keys_of_different_principals_are_independent() {
    let app = TestApp::start_with(&[ON, "--auth-anonymous-scopes=passengers:create,steps:create"]).await;
    let mut tokens = vec![None];
    for _ in 0..2 {
        tokens.push(Some(token(&app, "passengers:create steps:create").await.0));
    }
    let row = passenger();
    let rows = json!([passenger(), passenger()]);
    let step = json!({"component": "c", "version": "1", "owner": "o", "status": "s"});
    for (path, body) in [("/v1/passengers", &row), ("/v1/passengers", &rows), ("/v1/steps", &step)] {
        let key = Uuid::new_v4().to_string();
        let mut answers = Vec::new();
        for token in &tokens {
            let send_once = async || {
                let request = app.request(Method::POST, path).header("idempotency-key", &key).json(body);
                send(match token {
                    Some(token) => with_bearer(request, token),
                    None => request,
                })
                .await
            };
            let (first, again) = (send_once().await, send_once().await);
            first.expect(StatusCode::CREATED);
            assert!(!first.headers.contains_key("idempotency-replayed"), "another's answer");
            assert_eq!(again.header("idempotency-replayed"), "true");
            assert_eq!(again.body, first.body);
            answers.push(first.body);
        }
        if body.is_object() {
            answers.sort();
            answers.dedup();
            assert_eq!(answers.len(), 3, "each principal created its own row");
        }
    }
}

#[tokio::test]
async fn the_number_of_idempotency_keys_of_a_principal_is_limited() {
    let app = TestApp::start_with(&[ON, "--idempotency-max-keys=10"]).await;
    let (hoarder, _) = token(&app, "passengers:create").await;
    let (other, _) = token(&app, "passengers:create").await;
    let keyed = async |token: &str, key: &str, body: &Value| {
        let request = app.request(Method::POST, "/v1/passengers").header("idempotency-key", key).json(body);
        send(with_bearer(request, token)).await
    };
    for number in 0..10 {
        keyed(&hoarder, &number.to_string(), &passenger()).await.expect(StatusCode::CREATED);
    }
    for body in [passenger(), json!([passenger()])] {
        eventually(|| async {
            let answer = keyed(&hoarder, &Uuid::new_v4().to_string(), &body).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS { Ok(()) } else { Err(answer.body) }
        })
        .await;
    }
    // The first answer is replayed, and other principals are unaffected.
    assert_eq!(keyed(&hoarder, "3", &passenger()).await.header("idempotency-replayed"), "true");
    keyed(&other, "3", &passenger()).await.expect(StatusCode::CREATED);
    send(with_bearer(app.request(Method::POST, "/v1/passengers"), &hoarder).json(&passenger()))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test]
async fn browsers_send_a_preflight_before_credentials() {
    let app = TestApp::start_with(&[ON, "--cors-allow-origins=https://app.example"]).await;
    let preflight = app
        .request(Method::OPTIONS, "/v1/passengers")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization");
    let answer = send(preflight).await;
    answer.expect(StatusCode::NO_CONTENT);
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    let refused = send(app.request(Method::GET, "/v1/passengers").header("origin", "https://app.example")).await;
    refused.expect_problem(401, "unauthenticated");
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example");
    assert!(refused.header("access-control-expose-headers").contains("www-authenticate"));
}

#[tokio::test]
async fn the_principal_route_reports_identity_and_scopes() {
    let app = TestApp::start_with(&[ON, "--auth-anonymous-scopes=steps:read"]).await;
    let (token, id) = token(&app, "passengers:read steps:*").await;
    let nobody = app.get("/v1/principal").await.json();
    let expected = json!({
        "auth": "on", "credential": "anonymous", "principal": null, "scopes": ["steps:read"], "expiresAt": null,
    });
    assert_eq!(nobody, expected);
    let known = get(&app, "/v1/principal", &token).await.json();
    assert_eq!(known["principal"], format!("token:{id}"));
    assert_eq!(known["scopes"], json!(["passengers:read", "steps:*"]));
    app.get("/.well-known/oauth-protected-resource").await.expect_problem(404, "not-found");
    let open = TestApp::start().await;
    assert_eq!(open.get("/v1/principal").await.json()["scopes"], json!(["*:*"]));
}

#[tokio::test]
async fn no_shared_cache_may_store_what_requires_a_scope() {
    let app = TestApp::start_with(&[ON, "--auth-anonymous-scopes=steps:read"]).await;
    let (admin, _) = token(&app, "admin").await;
    let mut restricted = 0;
    for endpoint in endpoints::all(resources()) {
        for (method, access) in endpoint.methods {
            let directives = |answer: &Answer| answer.headers.get("cache-control").cloned();
            for template in endpoint.templates {
                let answer = send(with_bearer(request(&app, method, template), &admin)).await;
                if *access != Access::Public {
                    restricted += 1;
                    let found = directives(&answer).unwrap_or_else(|| panic!("{method} {template}: {}", answer.status));
                    assert!(["private, no-cache", "no-store"].contains(&found.to_str().expect("ASCII")), "{found:?}");
                }
            }
        }
    }
    assert!(restricted > 20, "{restricted}");
    // Also what anonymous clients may read: another client may lose the right.
    assert_eq!(app.get("/v1/steps").await.header("cache-control"), "private, no-cache");
    let open = TestApp::start().await;
    assert!(!open.get("/v1/steps").await.headers.contains_key("cache-control"));
}

#[tokio::test]
async fn the_rate_limit_of_a_principal_affects_no_other() {
    let app = TestApp::start_with(&[ON, "--principal-rate-limit=20", "--auth-anonymous-scopes=steps:read"]).await;
    let (greedy, _) = token(&app, "passengers:read").await;
    let (quiet, _) = token(&app, "passengers:read").await;
    let first = get(&app, "/v1/passengers?limit=1", &greedy).await;
    first.expect(StatusCode::OK);
    assert_eq!(first.header("ratelimit-policy"), "\"principal\";q=20;w=1");
    let asked = (0..200).map(|_| get(&app, "/v1/passengers?limit=1", &greedy));
    let answers = futures_util::future::join_all(asked).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status != StatusCode::OK).collect();
    assert!(!refused.is_empty());
    for answer in &refused {
        answer.expect_problem(429, "too-many-requests");
        assert_eq!(answer.header("ratelimit"), "\"principal\";r=0;t=1");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    }
    // Neither other principals nor anonymous requests are limited.
    get(&app, "/v1/passengers?limit=1", &quiet).await.expect(StatusCode::OK);
    // A refused request counts, and its answer states what remains: that of the principal, or of the address.
    let forbidden = get(&app, "/v1/tokens", &quiet).await;
    forbidden.expect_problem(403, "insufficient-scope");
    let missing = app.get("/v1/passengers").await;
    missing.expect_problem(401, "unauthenticated");
    let invalid = get(&app, "/v1/passengers", "made-up").await;
    invalid.expect_problem(401, "unauthenticated");
    for answer in [&forbidden, &missing, &invalid] {
        assert_eq!(answer.header("ratelimit-policy"), "\"principal\";q=20;w=1");
        assert!(answer.header("ratelimit").starts_with("\"principal\";r="), "{}", answer.header("ratelimit"));
    }
    app.get("/v1/steps").await.expect(StatusCode::OK);
    app.get("/readyz").await.expect(StatusCode::OK);
    // Random tokens are rate-limited by sender and cause no database queries.
    let made_up = futures_util::future::join_all((0..100).map(|_| async {
        let token = tokens::format::ApiToken::generate().expect("random bytes");
        get(&app, "/v1/passengers", token.reveal()).await.status
    }))
    .await;
    assert!(made_up.contains(&StatusCode::UNAUTHORIZED) && made_up.contains(&StatusCode::TOO_MANY_REQUESTS));
}

#[test]
fn scopes_in_settings_are_parsed_like_those_of_tokens() {
    assert_eq!("*:read,steps:create".parse::<Scopes>(), "*:read steps:create".parse::<Scopes>());
}
