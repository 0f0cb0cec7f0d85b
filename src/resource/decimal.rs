//! Exact decimals for PostgreSQL's `numeric`, without conversion to a double.
//!
//! This is our own code because a column has a fixed scale: a value is an integer number of units of its last place, so
//! comparing, writing and PostgreSQL's binary format need no arithmetic library.

use bytes::{BufMut, BytesMut};

/// Maximum precision: this many digits fit into 128 bits together with the three that PostgreSQL's groups of four may add.
pub const PRECISION_MAX: u8 = 35;

/// Base of the digits in PostgreSQL's binary format.
const BASE: u128 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// A number with `scale` decimal places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The unscaled value in two halves: this keeps the alignment, and so the size of a row's values, that of a 64-bit number.
    high: i64,
    low: u64,
    scale: u8,
}

impl Decimal {
    fn new(units: i128, scale: u8) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value is split into its halves"
        )]
        let (high, low) = ((units >> 64) as i64, units as u64);
        Self { high, low, scale }
    }

    /// The unscaled value.
    pub fn units(self) -> i128 {
        (i128::from(self.high) << 64) | i128::from(self.low)
    }

    /// Parses a number in decimal or scientific notation; `None` when it is not a number, or has more than `precision` digits
    /// or more than `scale` nonzero decimal places.
    pub fn parse(text: &str, precision: u8, scale: u8) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.as_bytes().first()? {
            b'-' => (true, &mantissa[1..]),
            b'+' => (false, &mantissa[1..]),
            _ => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if whole.len() + fraction.len() == 0 || !digits().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        // The power of ten of the first digit, relative to the last decimal place.
        let first = i64::try_from(whole.len()).ok()? - 1 + i64::from(exponent) + i64::from(scale);
        let mut units: i128 = 0;
        for (digit, place) in digits().zip((i64::MIN..=first).rev()) {
            let digit = i128::from(digit - b'0');
            if digit == 0 {
                continue;
            }
            let power = u32::try_from(place).ok().filter(|power| *power < u32::from(precision))?;
            units += digit * 10_i128.pow(power);
        }
        Some(Self::new(if negative { -units } else { units }, scale))
    }

    /// Appends the number with all decimal places of its scale.
    pub fn write(self, out: &mut Vec<u8>) {
        let units = self.units();
        if units < 0 {
            out.push(b'-');
        }
        let digits = format!("{:0width$}", units.unsigned_abs(), width = usize::from(self.scale) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(self.scale));
        out.extend_from_slice(whole.as_bytes());
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
    }

    /// Appends PostgreSQL's binary format of `numeric`: the number of base 10,000 digits, the weight of the first digit, the
    /// sign, the number of decimal places, and the digits.
    pub fn encode(self, out: &mut BytesMut) {
        let groups = self.scale.div_ceil(4);
        let mut rest = self.units().unsigned_abs() * 10_u128.pow(u32::from(groups * 4 - self.scale));
        let mut digits = Vec::new();
        while rest > 0 {
            digits.push(u16::try_from(rest % BASE).expect("below the base"));
            rest /= BASE;
        }
        let count = i16::try_from(digits.len()).expect("few digits");
        out.put_i16(count);
        out.put_i16(count - i16::from(groups) - 1);
        out.put_u16(if self.units() < 0 { NEGATIVE } else { 0 });
        out.put_u16(u16::from(self.scale));
        for digit in digits.iter().rev() {
            out.put_u16(*digit);
        }
    }

    /// Decodes PostgreSQL's binary format; `None` for NaN, infinity and numbers that exceed the scale.
    pub fn decode(raw: &[u8], scale: u8) -> Option<Self> {
        let word = |index: usize| raw.get(index * 2..index * 2 + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        let (count, sign) = (usize::from(word(0)?), word(2)?);
        let weight = i32::from(i16::from_be_bytes([raw[2], raw[3]]));
        if !(sign == 0 || sign == NEGATIVE) || raw.len() != 8 + count * 2 {
            return None;
        }
        let mut units: i128 = 0;
        for index in 0..count {
            let digit = i128::from(word(4 + index)?);
            let power = (weight - i32::try_from(index).ok()?) * 4 + i32::from(scale);
            units = units.checked_add(match u32::try_from(power) {
                Ok(power) => digit.checked_mul(10_i128.checked_pow(power)?)?,
                Err(_) => {
                    let divisor = 10_i128.pow(power.unsigned_abs().min(4));
                    if digit % divisor != 0 {
                        return None;
                    }
                    digit / divisor
                }
            })?;
        }
        Some(Self::new(if sign == NEGATIVE { -units } else { units }, scale))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(decimal: Decimal) -> String {
        let mut out = Vec::new();
        decimal.write(&mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn a_number_is_parsed_exactly_or_rejected() {
        for (given, precision, scale, expected) in [
            ("12.5", 5, 2, Some("12.50")),
            ("-0.05", 5, 2, Some("-0.05")),
            ("1.25e2", 5, 2, Some("125.00")),
            ("1250E-3", 5, 2, Some("1.25")),
            ("0.1000", 5, 1, Some("0.1")),
            ("00012", 2, 0, Some("12")),
            ("-0", 3, 1, Some("0.0")),
            ("9007199254740993", 16, 0, Some("9007199254740993")),
            ("1.005", 5, 2, None),
            ("1000", 5, 2, None),
            ("1e9", 5, 2, None),
            ("1e999999999", 5, 2, None),
            ("0e999999999", 5, 2, Some("0.00")),
            ("", 5, 2, None),
            (".", 5, 2, None),
            ("1..2", 5, 2, None),
            ("nan", 5, 2, None),
            ("1 2", 5, 2, None),
        ] {
            assert_eq!(Decimal::parse(given, precision, scale).map(text).as_deref(), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(scale in 0_u8..=20, units in -10_i128.pow(35) + 1..10_i128.pow(35)) {
            let decimal = Decimal::new(units, scale);
            prop_assert_eq!(decimal.units(), units);
            prop_assert_eq!(Decimal::parse(&text(decimal), PRECISION_MAX, scale), Some(decimal));
            let mut binary = BytesMut::new();
            decimal.encode(&mut binary);
            prop_assert_eq!(Decimal::decode(&binary, scale), Some(decimal));
        }

        #[test]
        fn no_text_or_bytes_make_reading_panic(
            text in "[-+.eE0-9]{0,12}|.{0,8}", raw in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let _ = Decimal::parse(&text, 10, 3);
            let _ = Decimal::decode(&raw, 3);
        }
    }
}
