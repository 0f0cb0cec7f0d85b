//! Tokens that must be refused, by kind. Apart from its one defect each token is valid, and it is signed with a key of the
//! issuer wherever the defect allows.

mod claims;
mod headers;
mod shapes;
mod signing;

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::claims as good_claims;
use super::signer::{Signer, base64url, ec, ed, key_set, openssl, rsa, rsa_pss};

/// A token and the description of its defect.
pub struct Hostile {
    pub kind: String,
    pub token: String,
}

/// A collection of tokens.
#[derive(Default)]
struct Tokens(Vec<Hostile>);

impl Tokens {
    fn add(&mut self, kind: impl Into<String>, token: impl Into<String>) {
        self.0.push(Hostile { kind: kind.into(), token: token.into() });
    }

    /// Adds a token with this header, signed with the issuer's P-256 key.
    fn header(&mut self, kind: impl Into<String>, header: &Value) {
        self.add(kind, ec().token_of(&header.to_string(), &good_claims().to_string()));
    }

    fn claims(&mut self, kind: impl Into<String>, claims: &Value) {
        self.add(kind, ec().token(claims));
    }
}

/// Keys of another party with the kids of the issuer's keys.
fn foreign_keys() -> &'static [Signer; 3] {
    static KEYS: OnceLock<[Signer; 3]> = OnceLock::new();
    KEYS.get_or_init(|| [Signer::rsa("rsa", "RS256"), Signer::es256("ec"), Signer::eddsa("ed")])
}

/// An RSA key of the issuer that is too short, in PEM.
fn short() -> &'static [u8] {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    KEY.get_or_init(|| openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], b""))
}

/// Keys of the issuer that are not intended for token signatures.
fn misplaced() -> &'static [(Signer, Value)] {
    static KEYS: OnceLock<Vec<(Signer, Value)>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let changes = [
            ("for-encryption", json!({"use": "enc"})),
            ("use-of-a-wrong-type", json!({"use": ["sig"]})),
            ("for-signing", json!({"key_ops": ["sign"]})),
            ("for-nothing", json!({"key_ops": []})),
            ("published-private", json!({"d": "AAAA"})),
            ("of-another-algorithm", json!({"alg": "ES384"})),
            ("of-an-algorithm-of-rsa", json!({"alg": "RS256"})),
            ("of-another-curve", json!({"crv": "secp256k1"})),
            ("of-a-wrong-kind", json!({"kty": "RSA"})),
            ("kind-in-small-letters", json!({"kty": "ec"})),
        ];
        let key = |(kid, changes): (&str, Value)| {
            let signer = Signer::es256(kid);
            let mut jwk = signer.jwk();
            jwk.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
            (signer, jwk)
        };
        changes.into_iter().map(key).collect()
    })
}

/// The issuer's key set.
pub fn document() -> String {
    let text = String::from_utf8(openssl(&["rsa", "-noout", "-modulus"], short())).expect("text");
    let hex = text.trim().strip_prefix("Modulus=").expect("a modulus");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    let n: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let mut pss = rsa_pss().jwk();
    pss["alg"] = json!("PS256");
    let more = [
        pss,
        json!({"kty": "RSA", "kid": "short", "n": base64url(n), "e": "AQAB", "use": "sig"}),
        json!({"kty": "RSA", "kid": "exponent-1", "n": base64url(rsa().modulus()), "e": "AQ", "use": "sig"}),
        json!({"kty": "oct", "kid": "shared", "k": base64url("secret"), "alg": "HS256"}),
    ];
    let misplaced = misplaced().iter().map(|(_, jwk)| jwk.clone());
    key_set(&[rsa(), ec(), ed()].map(Signer::jwk).into_iter().chain(more).chain(misplaced).collect::<Vec<_>>())
}

/// All malicious tokens.
pub fn all() -> Vec<Hostile> {
    let mut tokens = Tokens::default();
    signing::algorithms(&mut tokens);
    signing::confused_keys(&mut tokens);
    signing::signatures(&mut tokens);
    headers::headers(&mut tokens);
    headers::types(&mut tokens);
    claims::claims_of_wrong_types(&mut tokens);
    claims::times(&mut tokens);
    claims::duplicates(&mut tokens);
    shapes::shapes(&mut tokens);
    shapes::encodings(&mut tokens);
    tokens.0
}
