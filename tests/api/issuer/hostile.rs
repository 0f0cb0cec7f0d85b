//! Every malicious token is refused for its defect, and none causes unlimited key requests to the issuer.

use pycrudapi::auth::issuer::rules::Refused;

use super::hostile_tokens::{all, document};
use super::key_server::KeyServer;
use super::signer::{base64url, ec, ed, rsa, rsa_pss};
use super::{at, claims, now, options, start, with_document};

#[tokio::test]
async fn every_hostile_token_is_refused() {
    let (issuer, _file) = with_document(&document(), |_| ());
    for signer in [rsa(), rsa_pss(), ec(), ed()] {
        let outcome = issuer.verify(&signer.token(&claims()), now()).await;
        assert!(outcome.is_ok(), "the unmodified token must be accepted: {outcome:?}");
    }
    let tokens = all();
    let mut kinds: Vec<&str> = tokens.iter().map(|hostile| hostile.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() >= 400, "only {} kinds", kinds.len());
    for hostile in &tokens {
        let outcome = issuer.verify(&hostile.token, now()).await;
        let Err(Refused::Invalid(reason)) = outcome else { panic!("{}: {outcome:?}", hostile.kind) };
        assert!(issuer.principal(&hostile.token, now()).await.is_err(), "{}", hostile.kind);
        assert_eq!(issuer.known(&hostile.token, now()), None, "{} is remembered", hostile.kind);
        assert!(!reason.is_empty() && !reason.ends_with('.'), "{}: {reason}", hostile.kind);
    }
}

#[tokio::test]
async fn a_token_with_any_changed_character_is_refused() {
    let (issuer, _file) = with_document(&document(), |_| ());
    for signer in [rsa(), ed()] {
        let good = signer.token(&claims());
        for at in 0..good.len() {
            for letter in ["A", "B", "."] {
                if &good[at..=at] == letter {
                    continue;
                }
                let token = format!("{}{letter}{}", &good[..at], &good[at + 1..]);
                let outcome = issuer.verify(&token, now()).await;
                assert!(matches!(outcome, Err(Refused::Invalid(_))), "{letter} at {at} of {}: {outcome:?}", signer.alg);
            }
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_unknown_kids_cause_one_key_request() {
    let server = KeyServer::start(&[ec().jwk()]).await;
    let issuer = start(options(at(&server.keys_url())));
    assert!(issuer.verify(&ec().token(&claims()), now()).await.is_ok());
    let signature = ec().token(&claims());
    let (_, claims_and_signature) = signature.split_once('.').expect("three parts");
    for number in 0..100_000 {
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"made-up-{number}"}}"#);
        let token = format!("{}.{claims_and_signature}", base64url(header));
        let outcome = issuer.verify(&token, now()).await;
        assert!(matches!(outcome, Err(Refused::Invalid(_))), "{outcome:?}");
    }
    assert_eq!(server.requests(), 1, "within the pause after the first read there must be no other request");
}
