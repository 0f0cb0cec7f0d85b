//! Serves files embedded in the binary: pages, styles, scripts.
//!
//! A browser may cache a file but must revalidate it each time. The `ETag` is a hash of the content, so a new release takes
//! effect at once and an unchanged file costs no bytes. Large files are stored and sent compressed.

use std::sync::LazyLock;

use bytes::Bytes;
use warp::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, VARY,
};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::problem::{Code, Problem};

/// The content security policy of a page: it may load this service's scripts, styles and images, call its API, and nothing
/// else.
#[derive(Debug, Clone)]
pub struct Policy(HeaderValue);

impl Policy {
    /// A policy that also allows requests to another origin.
    pub fn allowing(origin: Option<&str>) -> Self {
        let other = origin.map_or(String::new(), |origin| format!(" {origin}"));
        let text = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{other}; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        Self(HeaderValue::from_str(&text).expect("an origin is printable ASCII"))
    }
}

/// The policy of files that need no exception.
static OWN: LazyLock<Policy> = LazyLock::new(|| Policy::allowing(None));

/// The media type of a page.
pub const HTML: &str = "text/html; charset=utf-8";
/// The media type of a style sheet.
pub const CSS: &str = "text/css; charset=utf-8";
/// The media type of a script.
pub const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The media type of a drawing.
pub const SVG: &str = "image/svg+xml";

/// An embedded file.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// The path at which it is served.
    pub path: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub body: &'static [u8],
    /// Whether the content is compressed with gzip.
    pub gzipped: bool,
}

impl Asset {
    /// The response to a request for it.
    ///
    /// # Errors
    /// 406 if it is compressed and the client does not accept that.
    pub fn answer(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        self.answer_with(headers, &OWN)
    }

    /// The same with a page-specific policy.
    ///
    /// # Errors
    /// As [`Asset::answer`].
    pub fn answer_with(&self, headers: &HeaderMap, policy: &Policy) -> Result<Response, Problem> {
        if self.gzipped && refuses_gzip(headers) {
            return Err(Problem::new(Code::NotAcceptable, "send the header Accept-Encoding: gzip"));
        }
        let mut response = answer_with(headers, self.media_type, Bytes::from_static(self.body), policy);
        if self.gzipped {
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

/// Responds with content that changes only with the release, or with 304 if the client has it already.
pub fn answer(headers: &HeaderMap, media_type: &'static str, body: Bytes) -> Response {
    answer_with(headers, media_type, body, &OWN)
}

fn answer_with(headers: &HeaderMap, media_type: &'static str, body: Bytes, policy: &Policy) -> Response {
    // The hash covers the policy too: a browser keeps the policy that it received with the content.
    let tag = format!("\"{:016x}\"", xxh3_64_with_seed(&body, xxh3_64(policy.0.as_bytes())));
    let known = has_tag(headers, &tag);
    let mut response = Response::new(if known { Bytes::new() } else { body }.into());
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, policy.0.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Returns true if the client has this content. nginx weakens the tag of a response that it compresses; weak tags match too
/// (RFC 9110, section 13.1.2).
fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Without the header every coding is acceptable (RFC 9110, section 12.5.3).
fn refuses_gzip(headers: &HeaderMap) -> bool {
    let Some(accepted) = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()) else { return false };
    let takes = |coding: &str| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let zero = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        !zero && ["gzip", "x-gzip", "*"].contains(&name.trim())
    };
    !accepted.split(',').any(takes)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderName;

    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gzip_is_acceptable_unless_accept_encoding_excludes_it() {
        assert!(!refuses_gzip(&HeaderMap::new()));
        for (accepted, refused) in [
            ("gzip", false),
            ("br, gzip;q=0.5", false),
            ("*", false),
            ("gzip, deflate, br, zstd", false),
            ("br", true),
            ("identity", true),
            ("gzip;q=0, br", true),
            ("", true),
        ] {
            assert_eq!(refuses_gzip(&with(ACCEPT_ENCODING, accepted)), refused, "{accepted}");
        }
    }

    #[test]
    fn unchanged_content_is_not_sent_again() {
        let first = answer(&HeaderMap::new(), HTML, Bytes::from_static(b"a page"));
        let tag = first.headers()[ETAG].to_str().expect("ASCII").to_owned();
        for (header, known) in [
            (tag.clone(), true),
            (format!("\"x\", W/{tag}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(&header).expect("ASCII"))]);
            let status = answer(&headers, HTML, Bytes::from_static(b"a page")).status();
            assert_eq!(status == StatusCode::NOT_MODIFIED, known, "{header}");
        }
    }
}
