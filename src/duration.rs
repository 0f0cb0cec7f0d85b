//! How long something lasts, as settings, arguments and requests say it.

use std::time::Duration;

/// Reads how long something is kept, between a second and some hours: a number of seconds, or with a unit.
///
/// # Errors
/// A sentence that names the bounds.
pub fn span<const HOURS: u64>(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = match unit {
        "h" => 60 * 60,
        "m" => 60,
        _ => 1,
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
    match total.filter(|total| (1..=HOURS * 60 * 60).contains(total)) {
        Some(total) => Ok(Duration::from_secs(total)),
        None => Err(format!("expected a time between 1s and {HOURS}h, for example 3600, 90s, 15m or 1h")),
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
    fn a_span_is_a_number_with_or_without_a_unit() {
        for (text, seconds) in [("1", 1), ("90s", 90), ("15m", 900), ("1h", 3600)] {
            assert_eq!(span::<48>(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "s", "0", "49h", "3d", "-1", "1.5h", "1w", "1 h", "18446744073709551615d"] {
            assert!(span::<48>(wrong).is_err(), "{wrong}");
        }
        assert!(span::<48>("1d").is_err());
        assert_eq!(long_span::<48>("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(long_span::<48>("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["0d", "3d", "d", "-1d", "1.5d", "18446744073709551615d"] {
            assert!(long_span::<48>(wrong).is_err(), "{wrong}");
        }
    }
}
