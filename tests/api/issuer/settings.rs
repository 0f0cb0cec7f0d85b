//! Valid and invalid combinations of the identity provider's settings.

use std::time::Duration;

use super::key_server::KeyServer;
use super::signer::ec;
use super::{claims, now, start, with};
use crate::harness::Settings;

#[test]
fn incompatible_settings_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("written");
    let empty = format!("--auth-ca-file={}", empty.display());
    let good = ["--auth-issuer=https://id.example", "--auth-audience=api"];
    let (issuer, audience) = (good[0], good[1]);
    for (flags, name) in [
        (vec![issuer], "AUTH_AUDIENCE"),
        (vec![audience], "AUTH_AUDIENCE"),
        (vec!["--auth-jwks-url=https://id.example/keys"], "AUTH_JWKS_URL"),
        (vec!["--auth-jwks-file=/keys"], "AUTH_JWKS_FILE"),
        (vec!["--auth-ca-file=/ca"], "AUTH_CA_FILE"),
        (vec!["--auth-scope-claim=roles"], "AUTH_SCOPE_CLAIM"),
        (vec!["--auth-scope-map=a=*:read"], "AUTH_SCOPE_MAP"),
        (vec!["--auth-client-id=page"], "AUTH_CLIENT_ID"),
        (vec!["--auth-client-scope=openid"], "AUTH_CLIENT_SCOPE"),
        (vec![issuer, audience, "--auth-jwks-url=https://id.example/keys", "--auth-jwks-file=/keys"], "AUTH_JWKS_URL"),
        (vec!["--auth-issuer=id.example", audience], "AUTH_ISSUER"),
        (vec!["--auth-issuer=http://id.example", audience], "AUTH_ISSUER"),
        (vec!["--auth-issuer=https://user@id.example", audience], "AUTH_ISSUER"),
        (vec![issuer, audience, "--auth-ca-file=/nowhere"], "AUTH_CA_FILE"),
        (vec![issuer, audience, &empty], "AUTH_CA_FILE"),
    ] {
        let outcome = Settings::parse(&flags).server.auth.issuer.options();
        let error = outcome.err().unwrap_or_else(|| panic!("{flags:?} was accepted")).to_string();
        assert!(
            error.starts_with(&format!("{name}: ")) || error.starts_with(&format!("{name}=")),
            "{flags:?}: {error}"
        );
    }
    assert!(matches!(Settings::parse(&[]).server.auth.issuer.options(), Ok(None)));
    assert!(matches!(Settings::parse(&good).server.auth.issuer.options(), Ok(Some(_))));
    // The location of the keys is configured, so the issuer may have any name.
    let flags = ["--auth-issuer=accounts.example", audience, "--auth-jwks-file=/keys"];
    assert!(matches!(Settings::parse(&flags).server.auth.issuer.options(), Ok(Some(_))));
}

#[test]
fn pages_sign_in_only_if_the_issuer_is_an_https_or_local_origin() {
    let scopes = ["passengers:read".to_owned(), "steps:create".to_owned()];
    let sign_in = |issuer: &str, more: &[&str]| {
        let issuer = format!("--auth-issuer={issuer}");
        let flags = [&[issuer.as_str(), "--auth-audience=api", "--auth-jwks-file=/keys"], more].concat();
        Settings::parse(&flags).server.auth.issuer.sign_in(&scopes)
    };
    let client = "--auth-client-id=page";
    assert!(matches!(sign_in("https://id.example", &[]), Ok(None)));
    for (issuer, origin) in [
        ("https://id.example/tenant/", "https://id.example"),
        ("https://id.example:8443", "https://id.example:8443"),
        ("http://localhost:9000", "http://localhost:9000"),
    ] {
        let found = sign_in(issuer, &[client]).expect("an address").expect("a client");
        assert_eq!((found.issuer.as_str(), found.origin.as_str(), found.client_id.as_str()), (issuer, origin, "page"));
        assert_eq!(found.scope, "openid passengers:read steps:create");
    }
    for (more, scope) in [
        ("--auth-client-scope=steps:*", "openid steps:*"),
        ("--auth-client-scope=email openid api://pages/all", "openid email api://pages/all"),
        ("--auth-scope-claim=roles", "openid"),
    ] {
        let found = sign_in("https://id.example", &[client, more]).expect("settings that go together");
        assert_eq!(found.expect("a client").scope, scope, "{more}");
    }
    // None of these is allowed in the pages' content security policy.
    for issuer in
        ["accounts.example", "http://id.example", "https://id.example;script-src", "https://[2001:db8::1]", "https://*"]
    {
        let error = sign_in(issuer, &[client]).expect_err(issuer).to_string();
        assert!(error.starts_with("AUTH_CLIENT_ID=page: AUTH_ISSUER must be"), "{error}");
    }
    let error = sign_in("https://id.example", &["--auth-client-scope=openid"]).expect_err("no client").to_string();
    assert!(error.starts_with("AUTH_CLIENT_SCOPE=openid: AUTH_CLIENT_ID must also be set"), "{error}");
}

#[tokio::test]
async fn every_setting_takes_effect() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = server.issuer();
    let flags = [
        &format!("--auth-issuer={issuer}"),
        "--auth-audience=other",
        "--auth-leeway=2m",
        "--auth-token-type=jwt",
        "--auth-scope-claim=groups",
        "--auth-scope-map=staff=passengers:*",
        "--auth-jwks-refresh=1h",
    ];
    let options = Settings::parse(&flags).server.auth.issuer.options().expect("good settings").expect("an issuer");
    assert_eq!(options.pace.refresh, Duration::from_secs(3600));
    let verifier = start(options);
    let mut claims = claims();
    claims["iss"] = issuer.into();
    claims["aud"] = "other".into();
    claims["groups"] = ["staff"].into();
    claims["exp"] = (*super::NOW - 119).into();
    let token = ec().token_of(&serde_json::json!({"alg": "ES256", "kid": "ec"}).to_string(), &claims.to_string());
    let verified = verifier.verify(&token, now()).await.expect("a good token");
    assert_eq!(verified.scopes, "passengers:*".parse().expect("a scope"));
    let wrong = ec().token(&with("aud", "api".into()));
    assert!(verifier.verify(&wrong, now()).await.is_err());
}
