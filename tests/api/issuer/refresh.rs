//! When the issuer's keys are fetched, and how tokens are verified while they cannot be.

use std::time::Duration;

use pycrudapi::auth::issuer::fetch::Client;
use pycrudapi::auth::issuer::rules::Refused;
use pycrudapi::auth::issuer::source::Source;
use pycrudapi::auth::issuer::{Issuer, Options};
use serde_json::json;

use super::key_server::{KeyServer, Mode};
use super::signer::{Signer, ec, ed, key_set};
use super::{at, claims, now, options, start, with, with_document};
use crate::harness::eventually;

/// A short interval, for refreshes that a test waits for.
const SOON: Duration = Duration::from_millis(5);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

fn with_intervals(source: Source, refresh: Duration, pause: Duration) -> Options {
    let mut options = options(source);
    options.pace.refresh = refresh;
    options.pace.pause = pause;
    options
}

/// Waits until the result for a token is as expected.
async fn until(issuer: &Issuer, token: &str, expected: impl Fn(&Result<(), Refused>) -> bool) {
    eventually(|| async {
        let outcome = issuer.verify(token, now()).await.map(drop);
        if expected(&outcome) { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .await;
}

fn is_invalid(outcome: &Result<(), Refused>) -> bool {
    matches!(outcome, Err(Refused::Invalid(_)))
}

#[tokio::test]
async fn a_new_key_is_fetched_when_the_first_token_names_it() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, Duration::ZERO));
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
    server.publish(&[ec().jwk(), ed().jwk()]);
    assert!(issuer.verify(&ed().token(&claims()), now()).await.is_ok());
    assert!(issuer.verify(&ec().token(&claims()), now()).await.is_ok());
    assert_eq!(server.requests(), 2, "one for the start, one for the new key");
}

#[tokio::test]
async fn a_new_key_without_a_kid_is_fetched_as_well() {
    let unnamed = |signer: &Signer| {
        let mut jwk = signer.jwk();
        jwk.as_object_mut().expect("an object").shift_remove("kid");
        jwk
    };
    let token = |signer: &Signer| {
        signer.token_of(&json!({"alg": signer.alg, "typ": "at+jwt"}).to_string(), &claims().to_string())
    };
    let (old, new) = (Signer::es256(""), Signer::es256(""));
    let server = KeyServer::start(&[unnamed(&old)]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, Duration::ZERO));
    until(&issuer, &token(&old), Result::is_ok).await;
    server.publish(&[unnamed(&new)]);
    assert!(issuer.verify(&token(&new), now()).await.is_ok());
}

#[tokio::test]
async fn many_tokens_with_a_new_key_share_one_fetch() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, Duration::ZERO));
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
    server.publish(&[ed().jwk()]);
    let token = ed().token(&claims());
    let outcomes = futures_util::future::join_all((0..200).map(|_| issuer.verify(&token, now()))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let removed = ec().token(&claims());
    assert!(is_invalid(&issuer.verify(&removed, now()).await.map(drop)));
    assert_eq!(server.requests(), 3, "one for the start, one for the new key, one for the removed key");
}

#[tokio::test]
async fn requests_before_the_first_key_set_wait_for_the_same_fetch() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, NEVER));
    let token = ec().token(&claims());
    let outcomes = futures_util::future::join_all((0..200).map(|_| issuer.verify(&token, now()))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{:?}", outcomes.iter().find(|outcome| outcome.is_err()));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_removed_key_is_invalid_after_the_next_refresh() {
    let server = KeyServer::start(&[ec().jwk(), ed().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), SOON, SOON));
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
    server.publish(&[ed().jwk()]);
    until(&issuer, &ec().token(&claims()), is_invalid).await;
    assert!(issuer.verify(&ed().token(&claims()), now()).await.is_ok());
}

#[tokio::test]
async fn while_the_issuer_is_unreachable_tokens_with_known_keys_are_accepted() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), SOON, SOON));
    let token = ec().token(&claims());
    until(&issuer, &token, Result::is_ok).await;
    let key = ec().jwk().to_string();
    for answer in [
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", server.keys_url()),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"keys\": {}}".to_owned(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{{\"keys\": [{key}"),
        format!("HTTP/1.1 200 OK\r\n\r\n{{\"keys\": [], \"more\": \"{}\"}}", "a".repeat(300_000)),
        "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"keys\":[],\"keys\":[] }".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ] {
        server.set(Mode::Raw(answer.clone()));
        let before = server.requests();
        eventually(|| async { if server.requests() >= before + 3 { Ok(()) } else { Err("no requests".to_owned()) } })
            .await;
        assert!(issuer.verify(&token, now()).await.is_ok(), "{answer}");
        // Whether the issuer now has this key cannot be determined.
        until(&issuer, &ed().token(&claims()), |outcome| *outcome == Err(Refused::Unavailable)).await;
        // Tokens that are invalid with any key are refused.
        assert!(is_invalid(&issuer.verify(&ed().token(&with("aud", json!("x"))), now()).await.map(drop)));
    }
    server.set(Mode::Serving);
    server.publish(&[ed().jwk()]);
    until(&issuer, &ed().token(&claims()), Result::is_ok).await;
    until(&issuer, &token, is_invalid).await;
}

#[tokio::test]
async fn an_unresponsive_issuer_delays_no_token_with_a_known_key() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), SOON, SOON));
    let token = ec().token(&claims());
    until(&issuer, &token, Result::is_ok).await;
    server.set(Mode::Silent);
    let before = server.requests();
    eventually(|| async { if server.requests() > before { Ok(()) } else { Err("no request".to_owned()) } }).await;
    for _ in 0..1000 {
        assert!(issuer.verify(&token, now()).await.is_ok());
    }
    assert_eq!(server.requests(), before + 1, "the only other request is still in progress");
}

#[tokio::test]
async fn without_keys_tokens_are_unavailable_until_keys_are_fetched() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    server.set(Mode::Raw(String::new()));
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, SOON));
    let token = ec().token(&claims());
    assert_eq!(issuer.verify(&token, now()).await.map(drop), Err(Refused::Unavailable));
    server.set(Mode::Serving);
    until(&issuer, &token, Result::is_ok).await;
}

#[tokio::test]
async fn an_empty_key_set_causes_no_repeated_requests() {
    for document in [key_set(&[]), key_set(&[json!({"kty": "oct", "k": "AA"})])] {
        let server = KeyServer::start(&[]).await;
        server.document("/keys", &document);
        let issuer = start(with_intervals(at(&server.keys_url()), NEVER, NEVER));
        for _ in 0..1000 {
            assert!(is_invalid(&issuer.verify(&ec().token(&claims()), now()).await.map(drop)));
        }
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_client_that_disconnects_does_not_cancel_the_fetch() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), NEVER, Duration::ZERO));
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
    server.publish(&[ed().jwk()]);
    let token = ed().token(&claims());
    // Polled once: the keys have been requested, and no caller waits for them any more.
    assert!(futures_util::FutureExt::now_or_never(issuer.verify(&token, now())).is_none());
    eventually(|| async { if server.requests() == 2 { Ok(()) } else { Err("no request".to_owned()) } }).await;
    assert!(issuer.verify(&token, now()).await.is_ok());
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn discovery_accepts_only_the_document_of_the_configured_issuer() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let other = KeyServer::start(&[ec().jwk()]).await;
    let discovery = |issuer: &str| {
        let client = Client::new(None).expect("no file to read");
        let mut options = with_intervals(Source::discovery(issuer, client).expect("an address"), NEVER, NEVER);
        options.rules.issuer = issuer.to_owned();
        start(options)
    };
    let token = |issuer: &str| ec().token(&with("iss", json!(issuer)));
    let issuer = server.issuer();
    assert!(discovery(&issuer).verify(&token(&issuer), now()).await.is_ok());
    // A trailing slash of the issuer's name is part of the name, but not of the document's address.
    let path = "/.well-known/openid-configuration";
    let slashed = format!("{issuer}/");
    let outcome = discovery(&slashed).verify(&token(&slashed), now()).await;
    assert_eq!(outcome.map(drop), Err(Refused::Unavailable), "the document belongs to the issuer without the slash");
    server.document(path, &json!({"issuer": slashed, "jwks_uri": server.keys_url()}).to_string());
    assert!(discovery(&slashed).verify(&token(&slashed), now()).await.is_ok());
    let asked = other.requests();
    for document in [
        json!({"issuer": "https://evil.example", "jwks_uri": other.keys_url()}),
        json!({"jwks_uri": other.keys_url()}),
        json!({"issuer": [issuer], "jwks_uri": other.keys_url()}),
        json!({"issuer": issuer}),
        json!({"issuer": issuer, "jwks_uri": "http://id.example/keys"}),
        json!({"issuer": issuer, "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": issuer, "jwks_uri": ["https://id.example/keys"]}),
        json!([]),
    ] {
        server.document(path, &document.to_string());
        let outcome = discovery(&issuer).verify(&token(&issuer), now()).await;
        assert_eq!(outcome.map(drop), Err(Refused::Unavailable), "{document}");
    }
    assert_eq!(other.requests(), asked, "the document of another issuer must not be followed");
}

#[tokio::test]
async fn a_key_file_is_reread_when_it_has_changed() {
    let (issuer, file) = with_document(&key_set(&[ec().jwk()]), |options| {
        options.pace.refresh = SOON;
        options.pace.pause = SOON;
    });
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
    std::fs::write(file.path(), key_set(&[ed().jwk()])).expect("written");
    until(&issuer, &ed().token(&claims()), Result::is_ok).await;
    until(&issuer, &ec().token(&claims()), is_invalid).await;
    std::fs::write(file.path(), "{").expect("written");
    until(&issuer, &ec().token(&claims()), |outcome| *outcome == Err(Refused::Unavailable)).await;
    assert!(issuer.verify(&ed().token(&claims()), now()).await.is_ok(), "an incomplete file must change nothing");
    std::fs::remove_file(file.path()).expect("removed");
    assert!(issuer.verify(&ed().token(&claims()), now()).await.is_ok(), "a missing file must change nothing");
    std::fs::write(file.path(), key_set(&[ec().jwk()])).expect("written");
    until(&issuer, &ec().token(&claims()), Result::is_ok).await;
}

#[tokio::test]
async fn a_verified_token_is_cached_until_its_key_is_removed() {
    let server = KeyServer::start(&[ec().jwk(), ed().jwk()]).await;
    let issuer = start(with_intervals(at(&server.keys_url()), SOON, SOON));
    let (first, second) = (ec().token(&claims()), ed().token(&claims()));
    assert_eq!(issuer.known(&first, now()), None);
    let principal = issuer.principal(&first, now()).await.expect("a good token");
    assert_eq!(principal.name.as_deref(), Some("https://id.example alice"));
    assert_eq!(issuer.known(&first, now()), Some(principal));
    assert!(issuer.principal(&second, now()).await.is_ok());
    server.publish(&[ed().jwk()]);
    eventually(|| async { if issuer.known(&first, now()).is_none() { Ok(()) } else { Err("still known".to_owned()) } })
        .await;
    assert!(matches!(issuer.principal(&first, now()).await, Err(Refused::Invalid(_))));
    assert!(issuer.principal(&second, now()).await.is_ok(), "the other token is verified again");
    assert!(issuer.known(&second, now()).is_some());
}

#[tokio::test]
async fn a_cached_token_is_refused_after_it_expires() {
    let (issuer, _file) = with_document(&key_set(&[ed().jwk()]), |_| ());
    let token = ed().token(&claims());
    let expires = issuer.principal(&token, now()).await.expect("a good token").expires.expect("it ends");
    assert!(issuer.known(&token, expires - Duration::from_millis(1)).is_some());
    assert_eq!(issuer.known(&token, expires), None);
    assert_eq!(issuer.principal(&token, expires).await, Err(Refused::Invalid("the token has expired")));
}
