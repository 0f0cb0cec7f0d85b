//! Which settings of the identity provider go together.

use std::time::Duration;

use super::key_server::KeyServer;
use super::signer::ec;
use super::{claims, now, start, with};
use crate::harness::Settings;

#[test]
fn settings_that_do_not_go_together_are_refused_by_name() {
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
    // Where the keys are is said, so the name may be any.
    let flags = ["--auth-issuer=accounts.example", audience, "--auth-jwks-file=/keys"];
    assert!(matches!(Settings::parse(&flags).server.auth.issuer.options(), Ok(Some(_))));
}

#[tokio::test]
async fn every_setting_is_heeded() {
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
