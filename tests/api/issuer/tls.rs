//! Keys are fetched over TLS only from servers whose certificate is signed by a CA in AUTH_CA_FILE and matches their name.

use super::key_server::KeyServer;
use super::signer::ec;
use super::{claims, now, start};
use crate::harness::Settings;
use crate::tls::certificates;
use pycrudapi::auth::issuer::rules::Refused;

#[tokio::test]
async fn keys_are_fetched_only_from_a_server_with_a_trusted_certificate_for_its_name() {
    for (name, authority, taken) in [
        ("localhost", Some("ca.pem"), true),
        ("localhost", Some("stranger.pem"), false),
        ("localhost", None, false),
        ("other.example", Some("ca.pem"), false),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = KeyServer::start_tls(&[ec().jwk()], certificates(folder.path(), name)).await;
        // Both with the key set's address and with discovery.
        for by_address in [true, false] {
            let mut token = claims();
            let mut flags = vec!["--auth-audience=https://api.example".to_owned(), "--auth-jwks-refresh=1s".to_owned()];
            if by_address {
                flags.push("--auth-issuer=https://id.example".to_owned());
                flags.push(format!("--auth-jwks-url={}", server.keys_url()));
            } else {
                flags.push(format!("--auth-issuer={}", server.issuer()));
                token["iss"] = server.issuer().into();
            }
            flags.extend(authority.map(|file| format!("--auth-ca-file={}", folder.path().join(file).display())));
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let options = Settings::parse(&flags).server.auth.issuer.options().expect("good settings");
            let before = server.requests();
            // The first fetch succeeds or fails.
            let outcome = start(options.expect("an issuer")).verify(&ec().token(&token), now()).await;
            match outcome {
                Ok(_) => assert!(taken, "{name} {authority:?} {by_address}"),
                Err(Refused::Unavailable) => assert!(!taken, "{name} {authority:?} {by_address}"),
                Err(other) => panic!("{name} {authority:?} {by_address}: {other:?}"),
            }
            // No request is sent to a server with an untrusted certificate.
            assert_eq!(server.requests() > before, taken, "{name} {authority:?} {by_address}");
        }
    }
}
