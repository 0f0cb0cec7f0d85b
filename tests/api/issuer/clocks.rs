//! Time claims at the limits of the leeway.

use std::time::{Duration, SystemTime};

use pycrudapi::auth::issuer::rules::Refused;
use serde_json::json;

use super::signer::{ed, key_set};
use super::{LEEWAY, NOW, now, with, with_document};

#[tokio::test]
async fn each_time_claim_is_checked_with_the_leeway_to_the_second() {
    for leeway in [Duration::ZERO, LEEWAY, Duration::from_secs(300)] {
        let (issuer, _file) = with_document(&key_set(&[ed().jwk()]), |options| options.rules.leeway = leeway);
        let seconds = leeway.as_secs();
        for (name, value, taken) in [
            // A token is expired at `exp`, not only after it (RFC 7519, 4.1.4).
            ("exp", *NOW - seconds - 1, false),
            ("exp", *NOW - seconds, false),
            ("exp", *NOW - seconds + 1, true),
            ("nbf", *NOW + seconds - 1, true),
            ("nbf", *NOW + seconds, true),
            ("nbf", *NOW + seconds + 1, false),
            ("iat", *NOW + seconds - 1, true),
            ("iat", *NOW + seconds, true),
            ("iat", *NOW + seconds + 1, false),
        ] {
            let outcome = issuer.verify(&ed().token(&with(name, json!(value))), now()).await;
            match outcome {
                Ok(_) => assert!(taken, "{name} = {value} was accepted"),
                Err(refused) => {
                    assert!(!taken && matches!(refused, Refused::Invalid(_)), "{name} = {value}: {refused:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_refused_from_its_reported_expiry_on() {
    let (issuer, _file) = with_document(&key_set(&[ed().jwk()]), |_| ());
    for exp in [json!(*NOW + 5), json!(f64::from(u32::try_from(*NOW).expect("32 bits")) + 5.25)] {
        let token = ed().token(&with("exp", exp));
        let expires = issuer.verify(&token, now()).await.expect("a good token").expires;
        assert!(issuer.verify(&token, expires - Duration::from_millis(1)).await.is_ok());
        assert!(matches!(issuer.verify(&token, expires).await, Err(Refused::Invalid("the token has expired"))));
    }
}

#[tokio::test]
async fn with_an_unset_clock_tokens_are_refused_without_a_panic() {
    let (issuer, _file) = with_document(&key_set(&[ed().jwk()]), |_| ());
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    let outcome = issuer.verify(&ed().token(&super::claims()), before).await;
    assert!(matches!(outcome, Err(Refused::Invalid(reason)) if reason.contains("clocks")), "{outcome:?}");
}
