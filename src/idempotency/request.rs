//! Reads the key of a request, and computes its fingerprint.

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use warp::http::header::{CONTENT_TYPE, HeaderName};
use warp::http::{HeaderMap, Method};
use xxhash_rust::xxh3::Xxh3;

use crate::auth::principal::Principal;
use crate::http::client::Client;
use crate::http::problem::{Code, Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Maximum length of a key: enough for any uuid, hash or name, and short enough for an index.
pub const KEY_MAX_BYTES: usize = 255;

/// Prefix of the stored key of a named principal. A client's key cannot contain it, so keys of anonymous clients never collide
/// with those of named principals.
const NAMED: char = '\u{1}';

/// An idempotent request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its key as stored.
    pub key: String,
    /// Identifies the request.
    pub fingerprint: [u8; 16],
    /// The client that sent it.
    pub client: Client,
}

/// The key of a principal's request as stored, if it has one.
///
/// Keys are scoped to the principal: the same key from another principal denotes another request. Anonymous clients share one
/// scope, in which an unguessable key such as a uuid is safe; their addresses are unsuitable as scopes, because a retry may
/// come from another address.
///
/// # Errors
/// 400 when it is not 1 to 255 printable ASCII characters, or sent twice.
pub fn key(headers: &HeaderMap, principal: &Principal) -> Result<Option<String>, Problem> {
    let Some(key) = given_key(headers)? else { return Ok(None) };
    let Some(name) = &principal.name else { return Ok(Some(key.to_owned())) };
    // A fixed length whatever the names; half a digest is enough to distinguish principals.
    let mut text = NAMED.to_string();
    BASE64.encode_string(&digest(&SHA256, name.as_bytes()).as_ref()[..16], &mut text);
    BASE64.encode_string(digest(&SHA256, key.as_bytes()), &mut text);
    Ok(Some(text))
}

/// Length of the owner part of a stored key: [`NAMED`] and 16 bytes in base64.
const OWNER_BYTES: usize = 1 + 22;

/// The owner part of a stored key; `None` for anonymous clients.
pub fn owner(key: &str) -> Option<&str> {
    if key.starts_with(NAMED) { key.get(..OWNER_BYTES) } else { None }
}

/// The key sent by the client: 1 to 255 printable ASCII characters.
///
/// # Errors
/// 400 when it is anything else, or sent twice.
fn given_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let printable = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let key = value.to_str().ok().filter(|text| (1..=KEY_MAX_BYTES).contains(&text.len())).filter(printable);
    match key {
        Some(key) if given.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::new(
            Code::InvalidHeader,
            "Idempotency-Key must be sent once and be 1 to 255 printable ASCII characters, such as a new uuid for \
             each request that is not a retry",
        )),
    }
}

/// A hash of method, path, query, media type and body. Streamed bodies are added chunk by chunk.
pub struct Fingerprint(Xxh3);

impl Fingerprint {
    /// Starts with everything except the body.
    pub fn begin(path: &str, query: &str, headers: &HeaderMap) -> Self {
        let mut hasher = Xxh3::new();
        let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        for part in [Method::POST.as_str().as_bytes(), path.as_bytes(), query.as_bytes(), media_type] {
            // Length prefixes make the encoding of the parts unambiguous.
            hasher.update(&part.len().to_be_bytes());
            hasher.update(part);
        }
        Self(hasher)
    }

    /// Adds a chunk of the body.
    pub fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// The fingerprint.
    pub fn finish(&self) -> [u8; 16] {
        self.0.digest128().to_be_bytes()
    }
}

impl Request {
    /// Reads the key, if there is one; `path` is that of the requested URL.
    ///
    /// # Errors
    /// As [`key`].
    pub fn read(
        (headers, principal): (&HeaderMap, &Principal),
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Result<Option<Self>, Problem> {
        let Some(key) = key(headers, principal)? else { return Ok(None) };
        let mut fingerprint = Fingerprint::begin(path, query, headers);
        fingerprint.update(body);
        Ok(Some(Self { key, fingerprint: fingerprint.finish(), client: Client::of(headers) }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use warp::http::HeaderValue;

    use super::*;
    use crate::auth::scope::Scopes;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| HeaderValue::from_bytes(line).expect("a header");
        lines.iter().map(|line| (IDEMPOTENCY_KEY, value(line))).collect()
    }

    #[test]
    fn a_key_is_one_short_printable_line() {
        let key = |headers: &HeaderMap| key(headers, Principal::anybody());
        assert!(key(&headers(&[])).is_ok_and(|key| key.is_none()));
        for good in ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"quoted, as the draft has it\"", &"x".repeat(255)] {
            assert_eq!(key(&headers(&[good.as_bytes()])).expect("a key").as_deref(), Some(good));
        }
        for bad in [&[&b""[..]][..], &[&[b'x'; 256][..]], &[b"caf\xc3\xa9"], &[b"tab\tin"], &[b"a", b"a"]] {
            assert!(key(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_scoped_to_their_principal() {
        let named = |name: &str| Principal { name: Some(name.into()), ..Principal::anonymous(Scopes::default()) };
        let stored = |principal: &Principal, text: &str| {
            key(&headers(&[text.as_bytes()]), principal).expect("a key").expect("a key")
        };
        let long = "x".repeat(255);
        let mut all: Vec<String> = ["k", &long]
            .iter()
            .flat_map(|text| {
                let nobody = Principal::anybody();
                [stored(nobody, text), stored(&named("token:1"), text), stored(&named("token:2"), text)]
            })
            .collect();
        // No client can send a key in its stored form.
        assert!(HeaderValue::from_str(&all[1]).is_err());
        assert!(all.iter().all(|key| key.len() <= KEY_MAX_BYTES));
        // Two owners, whatever their keys.
        assert_eq!(all.iter().filter_map(|key| owner(key)).collect::<BTreeSet<_>>().len(), 2);
        assert_eq!(owner(&all[1]), owner(&all[4]));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let fingerprint = |path, query, media_type: &'static str, body: &[u8]| {
            let mut headers = headers(&[b"k"]);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            Request::read((&headers, Principal::anybody()), path, query, body)
                .expect("a key")
                .expect("a key")
                .fingerprint
        };
        let all = [
            fingerprint("/a", "", "application/json", b"{}"),
            fingerprint("/b", "", "application/json", b"{}"),
            fingerprint("/", "a", "application/json", b"{}"),
            fingerprint("/a", "", "text/csv", b"{}"),
            fingerprint("/a", "", "application/json", b"{ }"),
            fingerprint("/a", "", "application/json{}", b""),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(all[0], fingerprint("/a", "", "application/json", b"{}"));
    }

    proptest! {
        #[test]
        fn no_header_makes_reading_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let _ = given_key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)]));
            }
        }

        #[test]
        fn a_body_in_chunks_has_the_fingerprint_of_the_whole(
            body in prop::collection::vec(any::<u8>(), 0..600), at in 0..600_usize,
        ) {
            let begin = || Fingerprint::begin("/", "", &HeaderMap::new());
            let (mut whole, mut chunks) = (begin(), begin());
            let (first, second) = body.split_at(at.min(body.len()));
            whole.update(&body);
            chunks.update(first);
            chunks.update(second);
            prop_assert_eq!(whole.finish(), chunks.finish());
        }
    }
}
