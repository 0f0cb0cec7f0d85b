//! The issuer's key set (RFC 7517): its usable keys, and the candidates for a token's signature.
//!
//! Unsupported keys and keys for other purposes are ignored, so that they do not affect the others. The permitted use of a key
//! depends on the key alone, never on a token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, PublicKey};
use super::json;

/// More keys than any issuer publishes.
const KEYS_MAX: usize = 256;
/// RFC 7518, 3.3.
const RSA_MIN_BITS: usize = 2048;
/// The maximum that ring verifies.
const RSA_MAX_BITS: usize = 8192;
/// Maximum number of keys tried for a token without a key id. Issuers without key ids have one key, or two during a rotation;
/// each attempt costs up to 0.1 ms.
const TRIED_MAX: usize = 4;

/// The keys of an issuer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Number of unusable keys in the document.
    pub left_out: usize,
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The only algorithm that the issuer permits for it, if specified.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

impl KeySet {
    /// Parses the document.
    ///
    /// # Errors
    /// If it is not a key set, with the reason.
    pub fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let mut document =
            json::object(document).ok_or("the key set is not a JSON object, or has a duplicate member")?;
        let Some(Value::Array(keys)) = document.shift_remove("keys") else {
            return Err("the key set has no list named keys");
        };
        if keys.len() > KEYS_MAX {
            return Err("the key set has more than 256 keys");
        }
        let all = keys.len();
        let keys: Vec<Key> = keys.iter().filter_map(|key| Key::parse(key.as_object()?)).collect();
        Ok(Self { left_out: all - keys.len(), keys })
    }

    /// The number of usable keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns true if no key is usable.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that may have signed a token with this algorithm and key id.
    pub fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &PublicKey> {
        let named = move |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        let fits = move |key: &&Key| key.algorithm.is_none_or(|only| only == algorithm) && key.public.fits(algorithm);
        self.keys.iter().filter(named).filter(fits).map(|key| &key.public).take(TRIED_MAX)
    }

    /// Returns true if there is a key with this id, of any kind.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }
}

impl Key {
    /// A key usable for token signatures; `None` for any other.
    fn parse(members: &Map<String, Value>) -> Option<Self> {
        // A key published with its private part is compromised.
        if members.contains_key("d") || members.contains_key("k") {
            return None;
        }
        let for_signatures = members.get("use").is_none_or(|purpose| purpose == "sig");
        let verifies = |operations: &Value| {
            operations.as_array().is_some_and(|operations| operations.iter().any(|one| one == "verify"))
        };
        if !for_signatures || !members.get("key_ops").is_none_or(verifies) {
            return None;
        }
        let kid = match members.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str()?.to_owned()),
        };
        let public = public_key(members)?;
        let algorithm = match members.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::of_name(name.as_str()?).filter(|algorithm| public.fits(*algorithm))?),
        };
        Some(Self { kid, algorithm, public })
    }
}

fn public_key(members: &Map<String, Value>) -> Option<PublicKey> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (without_zeros(bytes("n")?), without_zeros(bytes("e")?));
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            let exponent = e.iter().try_fold(0_u64, |all, byte| all.checked_mul(256)?.checked_add(u64::from(*byte)))?;
            let usable = (RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) && exponent >= 3 && exponent % 2 == 1;
            usable.then_some(PublicKey::Rsa { n, e })
        }
        ("EC", Some("P-256")) => {
            let (x, y): ([u8; 32], [u8; 32]) = (bytes("x")?.try_into().ok()?, bytes("y")?.try_into().ok()?);
            let mut point = [4; 65];
            point[1..33].copy_from_slice(&x);
            point[33..].copy_from_slice(&y);
            Some(PublicKey::P256(point))
        }
        ("OKP", Some("Ed25519")) => Some(PublicKey::Ed25519(bytes("x")?.try_into().ok()?)),
        _ => None,
    }
}

/// Some issuers write numbers with leading zeros, which RFC 7518, 2 forbids.
fn without_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}
