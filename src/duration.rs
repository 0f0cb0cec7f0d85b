//! Durations in settings, arguments and requests.

use std::time::Duration;

/// Parses a duration between a second and `HOURS` hours: a number with its unit. A number without a unit is rejected because it
/// is ambiguous: 30 could be days or seconds.
///
/// # Errors
/// A message that states the bounds.
pub fn span<const HOURS: u64>(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60)];
    let parts = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let total = parts.and_then(|(number, seconds)| number.parse::<u64>().ok()?.checked_mul(*seconds));
    match total.filter(|total| (1..=HOURS * 60 * 60).contains(total)) {
        Some(total) => Ok(Duration::from_secs(total)),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            Err(format!("missing unit; expected a time between 1s and {HOURS}h, for example 90s, 15m or 1h"))
        }
        None => Err(format!("expected a time between 1s and {HOURS}h, for example 90s, 15m or 1h")),
    }
}

/// As [`span`], for longer durations: days are also accepted.
///
/// # Errors
/// A message that states the bounds.
pub fn long_span<const HOURS: u64>(text: &str) -> Result<Duration, String> {
    let hours = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()?.checked_mul(24));
    match hours.filter(|hours| (1..=HOURS).contains(hours)) {
        Some(hours) => Ok(Duration::from_secs(hours * 60 * 60)),
        None => span::<HOURS>(text).map_err(|expected| format!("{expected}, or 30d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_its_unit() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("15m", 900), ("1h", 3600)] {
            assert_eq!(span::<48>(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "s", "0", "1", "3600", "0s", "49h", "3d", "-1", "1.5h", "1w", "1 h", "18446744073709551615d"]
        {
            assert!(span::<48>(wrong).is_err(), "{wrong}");
        }
        assert!(span::<48>("1d").is_err());
        let bare = long_span::<48>("30").expect_err("refused");
        assert_eq!(bare, "missing unit; expected a time between 1s and 48h, for example 90s, 15m or 1h, or 30d");
        assert_eq!(long_span::<48>("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(long_span::<48>("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["0d", "30", "3d", "d", "-1d", "1.5d", "18446744073709551615d"] {
            assert!(long_span::<48>(wrong).is_err(), "{wrong}");
        }
    }
}
