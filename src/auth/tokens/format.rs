//! The format of this service's tokens, and what is stored of them.
//!
//! `pycrudapi_`, 43 characters for 256 random bits, and 6 for a CRC-32 of everything before them. Secret scanners find tokens
//! with `pycrudapi_[0-9A-Za-z]{49}`; they and the server rule out made-up ones by the checksum, without a lookup. The digits
//! are those of GitHub's tokens: base 62, the most significant first. Only a SHA-256 is stored, because 256 random bits cannot
//! be guessed.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, error::Unspecified};

/// The prefix of every token.
pub const PREFIX: &str = "pycrudapi_";

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is the first power above 2^256.
const SECRET_DIGITS: usize = 43;
/// 62^6 is the first power above 2^32.
const CHECKSUM_DIGITS: usize = 6;

/// A token; it is shown once.
pub struct ApiToken(String);

impl ApiToken {
    /// Generates a token from the operating system's random bytes.
    ///
    /// # Errors
    /// If the operating system has none.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: [u8; 32]) -> Self {
        let mut text = PREFIX.to_owned();
        base62(bytes.to_vec(), SECRET_DIGITS, &mut text);
        let checksum = crc32fast::hash(text.as_bytes());
        base62(checksum.to_be_bytes().to_vec(), CHECKSUM_DIGITS, &mut text);
        Self(text)
    }

    /// The text of the token.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiToken(***)")
    }
}

/// Returns true if a text has the format and checksum of a token; it may still be unknown.
pub fn is_well_formed(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(PREFIX) else { return false };
    if digits.len() != SECRET_DIGITS + CHECKSUM_DIGITS || !digits.bytes().all(|byte| DIGITS.contains(&byte)) {
        return false;
    }
    let (signed, checksum) = text.split_at(text.len() - CHECKSUM_DIGITS);
    let mut expected = String::new();
    base62(crc32fast::hash(signed.as_bytes()).to_be_bytes().to_vec(), CHECKSUM_DIGITS, &mut expected);
    checksum == expected
}

/// The hash that is stored, and by which tokens are found.
pub fn hash(text: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Appends a number, most significant byte first, with this many digits.
fn base62(mut number: Vec<u8>, digits: usize, out: &mut String) {
    let mut reversed = Vec::with_capacity(digits);
    for _ in 0..digits {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("a remainder is below 62");
            remainder = value % 62;
        }
        reversed.push(DIGITS[remainder as usize]);
    }
    out.extend(reversed.iter().rev().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_greatest_numbers_fit() {
        let token = ApiToken::of([255; 32]);
        assert_eq!(token.reveal().len(), PREFIX.len() + 49);
        assert!(is_well_formed(token.reveal()));
        let mut text = String::new();
        base62(vec![0, 0, 0, 61], CHECKSUM_DIGITS, &mut text);
        base62(vec![0, 0, 0, 62], CHECKSUM_DIGITS, &mut text);
        assert_eq!(text, "00000z000010");
    }

    #[test]
    fn a_checksum_makes_no_token_of_another_length_or_of_other_characters() {
        let signed = |secret: &str| {
            let mut text = format!("{PREFIX}{secret}");
            base62(crc32fast::hash(text.as_bytes()).to_be_bytes().to_vec(), CHECKSUM_DIGITS, &mut text);
            text
        };
        let secret = "0".repeat(SECRET_DIGITS);
        assert!(is_well_formed(&signed(&secret)));
        for other in
            ["", &secret[1..], &format!("{secret}0"), &secret.replacen('0', "-", 1), &secret.replacen("00", "é", 1)]
        {
            assert!(!is_well_formed(&signed(other)), "{other}");
        }
    }

    #[test]
    fn a_token_is_not_shown_by_accident() {
        let token = ApiToken::generate().expect("random bytes");
        assert_eq!(format!("{token:?}"), "ApiToken(***)");
    }

    proptest! {
        #[test]
        fn a_token_is_well_formed_and_any_changed_character_makes_it_malformed(
            bytes: [u8; 32], place in 0..PREFIX.len() + 49, other in "[0-9A-Za-z_.-]",
        ) {
            let token = ApiToken::of(bytes);
            prop_assert!(is_well_formed(token.reveal()));
            let mut changed = token.reveal().to_owned();
            changed.replace_range(place..=place, &other);
            prop_assert_eq!(is_well_formed(&changed), changed == token.reveal());
        }

        #[test]
        fn different_numbers_are_different_tokens(one: [u8; 32], other: [u8; 32]) {
            prop_assert_eq!(one == other, ApiToken::of(one).reveal() == ApiToken::of(other).reveal());
        }
    }
}
