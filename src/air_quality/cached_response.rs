//! A cached response, and its encoding in Redis: a short header followed by the body, which is sent unchanged.
//!
//! A value from Redis is used only if its length, mark and checksum are valid: it may have been truncated, overwritten by
//! another program or written by another release.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Identifies our values and their layout; change it with the layout.
const MARK: &[u8; 8] = b"pycr-aq1";
/// Mark, checksum of everything after it, generation, and milliseconds since 1970.
const HEADER_BYTES: usize = 8 + 8 + 16 + 8;

/// A cached response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedResponse {
    /// The generation of the readings from which it was built.
    pub generation: Uuid,
    /// When it was built, to the millisecond.
    pub made_at: SystemTime,
    /// The body.
    pub body: Bytes,
}

impl CachedResponse {
    /// A response built now.
    pub fn new(generation: Uuid, body: Bytes) -> Self {
        Self { generation, made_at: SystemTime::now(), body }
    }

    /// Time since it was built; zero if another machine's clock is ahead.
    pub fn age(&self) -> Duration {
        self.made_at.elapsed().unwrap_or_default()
    }

    /// Encodes it for Redis.
    pub fn encode(&self) -> Vec<u8> {
        let since = self.made_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut value = Vec::with_capacity(HEADER_BYTES + self.body.len());
        value.put_slice(MARK);
        value.put_u64(0); // the checksum, once the rest is there
        value.put_slice(self.generation.as_bytes());
        value.put_u64(u64::try_from(since.as_millis()).unwrap_or_default());
        value.put_slice(&self.body);
        let checksum = xxh3_64(&value[16..]);
        value[8..16].copy_from_slice(&checksum.to_be_bytes());
        value
    }

    /// Decodes a value from Redis without copying its body; `None` if the value is invalid.
    pub fn decode(value: Vec<u8>) -> Option<Self> {
        let value = Bytes::from(value);
        let (mark, rest) = value.split_first_chunk::<8>()?;
        let (checksum, rest) = rest.split_first_chunk::<8>()?;
        if mark != MARK || u64::from_be_bytes(*checksum) != xxh3_64(rest) {
            return None;
        }
        let (generation, rest) = rest.split_first_chunk::<16>()?;
        let (millis, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            generation: Uuid::from_bytes(*generation),
            made_at: UNIX_EPOCH.checked_add(Duration::from_millis(u64::from_be_bytes(*millis)))?,
            body: value.slice(HEADER_BYTES..),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_no_damage_goes_unnoticed(
            body in prop::collection::vec(any::<u8>(), 0..200), millis in 0..4_000_000_000_000_u64,
            at in any::<prop::sample::Index>(), change in 1..=255_u8,
        ) {
            let made_at = UNIX_EPOCH + Duration::from_millis(millis);
            let entry = CachedResponse { generation: Uuid::now_v7(), made_at, body: body.into() };
            let value = entry.encode();
            prop_assert_eq!(CachedResponse::decode(value.clone()), Some(entry));
            let at = at.index(value.len());
            prop_assert_eq!(CachedResponse::decode(value[..at].to_vec()), None);
            let mut damaged = value;
            damaged[at] ^= change;
            prop_assert_eq!(CachedResponse::decode(damaged), None);
        }

        #[test]
        fn garbage_is_no_entry(value in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(CachedResponse::decode(value), None);
        }
    }
}
