//! `Server-Timing` (W3C): the duration of a response on the server, which browsers show in their developer tools.

use std::time::Duration;

use warp::http::header::{HeaderName, HeaderValue};

/// The header's name.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Capacity for two durations of half a million years.
const VALUE_MAX_BYTES: usize = 64;

/// The header's value: the time until the response began, and the part of it spent waiting for the database.
pub fn value(app: Duration, db: Duration) -> HeaderValue {
    let mut text = [0; VALUE_MAX_BYTES];
    let mut length = 0;
    let mut digits = itoa::Buffer::new();
    for (name, duration) in [("app;dur=", app), (", db;dur=", db)] {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        put(&mut text, &mut length, name);
        put(&mut text, &mut length, digits.format(micros / 1000));
        put(&mut text, &mut length, ".");
        // The leading 1 preserves leading zeros.
        put(&mut text, &mut length, &digits.format(1000 + micros % 1000)[1..]);
    }
    HeaderValue::from_bytes(&text[..length]).expect("digits and letters are printable")
}

fn put(text: &mut [u8; VALUE_MAX_BYTES], length: &mut usize, piece: &str) {
    text[*length..*length + piece.len()].copy_from_slice(piece.as_bytes());
    *length += piece.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds_with_three_digits() {
        let shown = |app, db| value(Duration::from_micros(app), Duration::from_micros(db));
        assert_eq!(shown(0, 7), "app;dur=0.000, db;dur=0.007");
        assert_eq!(shown(1_234, 110_011), "app;dur=1.234, db;dur=110.011");
        assert_eq!(shown(60_000_000, 1_000), "app;dur=60000.000, db;dur=1.000");
        assert_eq!(
            value(Duration::MAX, Duration::MAX).len(),
            "app;dur=, db;dur=".len() + 2 * "18446744073709551.615".len()
        );
    }
}
