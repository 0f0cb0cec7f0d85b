//! Bytes in hexadecimal digits. The standard library parses numbers, and accepts a sign in place of a digit: `+f` is not a
//! byte.

/// Parses two digits, in upper or lower case.
pub fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    let value = digit(0)? * 16 + digit(1)?;
    if digits.len() == 2 { u8::try_from(value).ok() } else { None }
}

/// Parses a text of digits.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(byte).collect()
}

/// Formats bytes as digits in lower case.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn only_pairs_of_digits_are_accepted() {
        assert_eq!(byte(b"aF"), Some(0xaf));
        for wrong in ["+f", "-1", " 1", "1 ", "g0", "1", "123", "é", ""] {
            assert_eq!(byte(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(bytes("00ff"), Some(vec![0, 255]));
        assert_eq!(bytes("00f"), None);
    }

    proptest! {
        #[test]
        fn bytes_round_trip(all in any::<Vec<u8>>()) {
            prop_assert_eq!(bytes(&text(&all)), Some(all.clone()));
            prop_assert_eq!(bytes(&text(&all).to_uppercase()), Some(all));
        }
    }
}
