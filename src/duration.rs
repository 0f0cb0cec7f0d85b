//! How long something lasts, as settings, arguments and requests say it.

use std::time::Duration;

/// Reads how long something is kept, between a second and some hours: a number with its unit. One without is refused: 30 is days to
/// one, and seconds to another.
///
/// # Errors
/// A sentence that names the bounds.
pub fn span<const HOURS: u64>(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 60 * 60)];
    let parts = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let total = parts.and_then(|(number, seconds)| number.parse::<u64>().ok()?.checked_mul(*seconds));
    match total.filter(|total| (1..=HOURS * 60 * 60).contains(total)) {
        Some(total) => Ok(Duration::from_secs(total)),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            Err(format!("it has no unit; expected a time between 1s and {HOURS}h, for example 90s, 15m or 1h"))
        }
        None => Err(format!("expected a time between 1s and {HOURS}h, for example 90s, 15m or 1h")),
    }
}

/// The same for what lasts long: days are taken, too.
///
/// # Errors
/// A sentence that names the bounds.
pub fn long_span<const HOURS: u64>(text: &str) -> Result<Duration, String> {
    let hours = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()?.checked_mul(24));
    match hours.filter(|hours| (1..=HOURS).contains(hours)) {
        Some(hours) => Ok(Duration::from_secs(hours * 60 * 60)),
        None => span::<HOURS>(text).map_err(|wanted| format!("{wanted}, or 30d")),
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
        assert_eq!(bare, "it has no unit; expected a time between 1s and 48h, for example 90s, 15m or 1h, or 30d");
        assert_eq!(long_span::<48>("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(long_span::<48>("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["0d", "30", "3d", "d", "-1d", "1.5d", "18446744073709551615d"] {
            assert!(long_span::<48>(wrong).is_err(), "{wrong}");
        }
    }
}
