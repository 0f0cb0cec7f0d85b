//! Accepted tokens, and the values read from them.

use std::time::Duration;

use pycrudapi::auth::issuer::rules::{Refused, TokenType};
use pycrudapi::auth::scope::Scopes;
use serde_json::{Value, json};

use super::signer::{Signer, ec, ed, key_set, rsa, rsa_pss};
use super::{LEEWAY, NOW, claims, now, with, with_document, without};

fn all_keys() -> String {
    key_set(&[rsa(), rsa_pss(), ec(), ed()].map(Signer::jwk))
}

fn scopes(text: &str) -> Scopes {
    text.parse().expect("scopes")
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_accepted() {
    let (issuer, _file) = with_document(&all_keys(), |_| ());
    for signer in [rsa(), rsa_pss(), ec(), ed()] {
        let verified = issuer.verify(&signer.token(&claims()), now()).await.expect(signer.alg);
        assert_eq!(verified.subject, "alice", "{}", signer.alg);
        assert_eq!(verified.scopes, scopes("passengers:read steps:create"), "{}", signer.alg);
        assert_eq!(verified.expires, now() + Duration::from_secs(3600) + LEEWAY, "{}", signer.alg);
    }
}

#[tokio::test]
async fn each_form_allowed_by_the_rfcs_is_accepted() {
    let (issuer, _file) = with_document(&all_keys(), |_| ());
    let api = super::AUDIENCE;
    for good in [
        with("aud", json!([api])),
        with("aud", json!(["https://other.example", api])),
        with("exp", json!(f64::from(u32::try_from(*NOW).expect("32 bits")) + 0.5)),
        with("exp", json!(253_402_300_799_u64)),
        with("nbf", json!(0)),
        with("iat", json!(-1)),
        without("nbf"),
        without("iat"),
        without("jti"),
        without("scope"),
        with("sub", json!("ä".repeat(127))),
        with("sub", json!("auth0|5f7c8ec7c33c6c004bbafe82")),
        with("scope", json!("")),
        with("anything", json!({"deep": [{"er": null}]})),
    ] {
        let outcome = issuer.verify(&ec().token(&good), now()).await;
        assert!(outcome.is_ok(), "{outcome:?}: {good}");
    }
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        let header = json!({"alg": "ES256", "typ": typ, "kid": "ec", "x5t": "abc", "extra": {"a": 1}}).to_string();
        let outcome = issuer.verify(&ec().token_of(&header, &claims().to_string()), now()).await;
        assert!(outcome.is_ok(), "{outcome:?}: {typ}");
    }
    let spaced = format!(" {}\n", serde_json::to_string_pretty(&claims()).expect("JSON"));
    assert!(issuer.verify(&ec().token_of(&ec().header().to_string(), &spaced), now()).await.is_ok());
}

#[tokio::test]
async fn a_token_without_a_kid_is_verified_with_the_few_matching_keys() {
    let mut jwks = [rsa(), ec(), ed()].map(Signer::jwk);
    let header = |alg: &str| json!({"alg": alg, "typ": "at+jwt"}).to_string();
    let strangers: Vec<Value> = (0..3).map(|number| Signer::es256(&format!("other{number}")).jwk()).collect();
    for jwk in &mut jwks {
        jwk.as_object_mut().expect("an object").shift_remove("kid");
    }
    let (issuer, _file) = with_document(&key_set(&[&strangers[..], &jwks[..]].concat()), |_| ());
    for signer in [rsa(), ec(), ed()] {
        let token = signer.token_of(&header(signer.alg), &claims().to_string());
        assert!(issuer.verify(&token, now()).await.is_ok(), "{}", signer.alg);
    }
    // A key without a kid does not match a token that has one.
    assert!(matches!(issuer.verify(&ec().token(&claims()), now()).await, Err(Refused::Invalid(_))));
}

#[tokio::test]
async fn unusable_keys_of_a_key_set_are_skipped() {
    let unusable = [
        json!(null),
        json!("text"),
        json!({}),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "p521"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "short"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AA", "kid": "x"}),
        json!({"kty": "RSA", "n": "", "e": "", "kid": "empty"}),
        json!({"kty": "future", "kid": ["list"]}),
    ];
    let (issuer, _file) = with_document(&key_set(&[&unusable[..], &[ec().jwk()]].concat()), |_| ());
    assert!(issuer.verify(&ec().token(&claims()), now()).await.is_ok());
}

#[tokio::test]
async fn scopes_are_read_from_the_configured_claim() {
    let roles = json!({"roles": ["reader", "clerk", "admin"]});
    let claims_of = |changes: Value| {
        let mut claims = without("scope");
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        claims
    };
    let default = [
        (json!({"scope": "*:read"}), "*:read"),
        (json!({"scope": "*:read openid  steps:*"}), "*:read steps:*"),
        (json!({"scope": ["*:read", "openid"]}), "*:read"),
        (json!({"scp": "*:read"}), "*:read"),
        (json!({"scp": ["*:read", "steps:*"]}), "*:read steps:*"),
        (json!({"scope": "steps:*", "scp": "admin"}), "steps:*"),
        (json!({"roles": ["admin"]}), ""),
    ];
    let named = [
        (json!({"realm_access": roles, "scope": "admin"}), "*:read passengers:* steps:read"),
        (json!({"realm_access": {"roles": "clerk"}}), "passengers:* steps:read"),
        (json!({"realm_access.roles": "reader", "realm_access": roles}), "*:read"),
        (json!({"realm_access": {"roles": []}}), ""),
        (json!({"realm_access": "reader"}), ""),
        (json!({"scope": "admin"}), ""),
    ];
    let (plain, _file) = with_document(&all_keys(), |_| ());
    let (mapped, _other) = with_document(&all_keys(), |options| {
        options.scopes.claim = Some("realm_access.roles".parse().expect("a path"));
        options.scopes.map = Some("reader=*:read, clerk=passengers:* steps:read".parse().expect("a mapping"));
    });
    let cases = default.iter().map(|case| (&plain, case)).chain(named.iter().map(|case| (&mapped, case)));
    for (issuer, (changes, expected)) in cases {
        let verified = issuer.verify(&ed().token(&claims_of(changes.clone())), now()).await.expect("a good token");
        assert_eq!(verified.scopes, scopes(expected), "{changes}");
    }
}

#[tokio::test]
async fn tokens_of_type_jwt_are_accepted_only_where_configured_and_other_types_never() {
    let (strict, _file) = with_document(&all_keys(), |_| ());
    let (lenient, _other) = with_document(&all_keys(), |options| options.rules.token_type = TokenType::Jwt);
    let token = |typ: Option<&str>, claims: &Value| {
        let mut header = json!({"alg": "ES256", "kid": "ec"});
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        ec().token_of(&header.to_string(), &claims.to_string())
    };
    for typ in [None, Some("JWT"), Some("jwt"), Some("application/jwt")] {
        let token = token(typ, &claims());
        assert!(lenient.verify(&token, now()).await.is_ok(), "{typ:?}");
        assert!(matches!(strict.verify(&token, now()).await, Err(Refused::Invalid(_))), "{typ:?}");
    }
    for good in [with("typ", json!("Bearer")), with("token_use", json!("access")), with("typ", json!("bearer"))] {
        assert!(lenient.verify(&token(Some("JWT"), &good), now()).await.is_ok(), "{good}");
    }
    assert!(lenient.verify(&ec().token(&claims()), now()).await.is_ok(), "at+jwt is accepted as well");
    for other in [
        with("nonce", json!("n")),
        with("at_hash", json!("h")),
        with("c_hash", json!("h")),
        with("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}})),
        with("typ", json!("ID")),
        with("typ", json!("Refresh")),
        with("typ", json!(1)),
        with("token_use", json!("id")),
    ] {
        let outcome = lenient.verify(&token(Some("JWT"), &other), now()).await;
        assert!(matches!(outcome, Err(Refused::Invalid(_))), "{outcome:?}: {other}");
    }
    for typ in ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", ""] {
        let outcome = lenient.verify(&token(Some(typ), &claims()), now()).await;
        assert!(matches!(outcome, Err(Refused::Invalid(_))), "{outcome:?}: {typ}");
    }
}
