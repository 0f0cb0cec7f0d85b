//! Content negotiation: selects the offered media type that the `Accept` header prefers (RFC 9110, section 12.5.1).

use warp::http::HeaderMap;
use warp::http::header::ACCEPT;

use super::problem::{Code, Problem};

/// Selects one of the offered types; the first is the default, and their order breaks ties.
///
/// # Errors
/// 406 when the header excludes them all.
pub fn negotiate(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    let ranges: Vec<Range<'_>> = ranges(headers).collect();
    if ranges.is_empty() {
        return Ok(offered.first().expect("something is offered"));
    }
    let mut best = (0.0, None);
    for media_type in offered {
        let quality = quality(&ranges, media_type);
        if quality > best.0 {
            best = (quality, Some(*media_type));
        }
    }
    best.1.ok_or_else(|| Problem::new(Code::NotAcceptable, format!("send the header Accept: {}", offered.join(" or "))))
}

/// Returns true if the header lists this type explicitly, as browsers list `text/html`, and not only through a wildcard.
pub fn names(headers: &HeaderMap, media_type: &str) -> bool {
    ranges(headers).any(|range| range.media_type.eq_ignore_ascii_case(media_type) && range.quality > 0.0)
}

/// The ranges in the header; elements that violate its grammar are ignored.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = Range<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(Range::parse)
}

/// One element of the header.
#[derive(Debug)]
struct Range<'a> {
    media_type: &'a str,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|name| !name.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(Some(1.0), |q| q.parse().ok().filter(|q| (0.0..=1.0).contains(q)))?;
        Some(Self { media_type, quality })
    }

    /// How specifically the range matches the type: exactly, by `type/*`, or by `*/*`; `None` if it does not match.
    fn precision(&self, media_type: &str) -> Option<u8> {
        if self.media_type.eq_ignore_ascii_case(media_type) {
            return Some(2);
        }
        let family = media_type.split_once('/').map_or("", |(family, _)| family);
        match self.media_type.split_once('/') {
            Some(("*", "*")) => Some(0),
            Some((given, "*")) if given.eq_ignore_ascii_case(family) => Some(1),
            _ => None,
        }
    }
}

/// The most specific range decides, not the one with the highest quality.
fn quality(ranges: &[Range<'_>], media_type: &str) -> f32 {
    let fitting = ranges.iter().filter_map(|range| Some((range.precision(media_type)?, range.quality)));
    fitting.max_by_key(|(precision, _)| *precision).map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    const OFFERED: &[&str] = &["text/csv", "application/json"];

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_most_specific_range_decides_and_the_offered_order_breaks_ties() {
        assert_eq!(negotiate(&HeaderMap::new(), OFFERED).ok(), Some("text/csv"));
        for (accept, expected) in [
            ("*/*", Some("text/csv")),
            ("application/json", Some("application/json")),
            ("Application/JSON; charset=utf-8", Some("application/json")),
            ("application/*", Some("application/json")),
            ("application/json, text/csv", Some("text/csv")),
            ("application/json, text/csv;q=0.9", Some("application/json")),
            ("text/csv;q=0, */*", Some("application/json")),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Some("text/csv")),
            ("text/html", None),
            ("text/csv;q=0", None),
            ("text/csv;q=7", Some("text/csv")),
            (" , ,", Some("text/csv")),
        ] {
            assert_eq!(negotiate(&headers(accept), OFFERED).ok(), expected, "{accept}");
        }
    }

    #[test]
    fn only_an_explicit_media_type_counts_as_listed() {
        assert!(names(&headers("application/xml;q=0.9, text/html;q=0.8"), "text/html"));
        for accept in ["*/*", "text/*", "text/html;q=0", ""] {
            assert!(!names(&headers(accept), "text/html"), "{accept}");
        }
    }
}
