//! Which requests come from browsers, and from which pages they may write.
//!
//! A page of any origin can send a `POST` without a preflight request (a form, or `fetch` with `no-cors`); it only cannot read
//! the response. A request with an unsafe method is therefore refused if the browser states that it comes from a page of
//! another origin, unless `CORS_ALLOW_ORIGINS` lists that origin. Other programs send none of these headers and are not
//! affected.

use warp::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, Request};

use super::cors::Origins;
use super::host::split_port;
use super::problem::{Code, Problem};

/// The relation of the page's origin to this one, as the browser reports it (W3C, Fetch Metadata Request Headers).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers that browsers send and pages cannot set.
const FETCH_METADATA: [HeaderName; 4] = [
    SITE,
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-user"),
];
/// The scheme that the client used, as reported by nginx.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns true if a browser sent the request: other programs send none of these headers.
pub fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || FETCH_METADATA.iter().any(|name| headers.contains_key(name))
}

/// Refuses an unsafe request from a page of another origin that is not listed.
///
/// # Errors
/// 403.
pub fn check_origin<B>(request: &Request<B>, origins: &Origins) -> Result<(), Problem> {
    // Safe methods change nothing (RFC 9110, section 9.2.1).
    if request.method().is_safe() || *origins == Origins::Any {
        return Ok(());
    }
    let headers = request.headers();
    let all_sites = |known: &[&str]| headers.get_all(SITE).iter().all(|site| known.iter().any(|known| site == known));
    // Behind a proxy that terminates TLS without reporting it, only the browser can tell the scheme.
    let vouched = headers.contains_key(SITE) && all_sites(&["same-origin"]);
    let mut listed = false;
    for origin in headers.get_all(ORIGIN) {
        if origins.lists(origin) {
            listed = true;
        } else if !is_own(origin, request, vouched) {
            return Err(foreign());
        }
    }
    if listed || all_sites(&["same-origin", "none"]) { Ok(()) } else { Err(foreign()) }
}

/// Returns true if this is the origin of the request's own URL.
fn is_own<B>(origin: &HeaderValue, request: &Request<B>, any_scheme: bool) -> bool {
    let headers = request.headers();
    let text = |value: &HeaderName| headers.get(value).and_then(|value| value.to_str().ok());
    // A target in absolute form overrides `Host` (RFC 9112, section 3.2.2).
    let authority = request.uri().authority().map(Authority::as_str).or_else(|| text(&HOST));
    let Some(((scheme, page), authority)) = origin.to_str().ok().and_then(|text| text.split_once("://")).zip(authority)
    else {
        return false; // `null` among others
    };
    let port = |port: Option<&str>| {
        port.map_or(if scheme == "https" { Some(443) } else { Some(80) }, |port| port.parse().ok())
    };
    let ((page, page_port), (host, host_port)) = (split_port(page), split_port(authority));
    (any_scheme || text(&FORWARDED_PROTO).unwrap_or("http") == scheme)
        && page.eq_ignore_ascii_case(host)
        && port(page_port).is_some()
        && port(page_port) == port(host_port)
}

fn foreign() -> Problem {
    Problem::new(
        Code::ForeignOrigin,
        "a page of another origin may not change anything here; the operator can allow its origin in \
         CORS_ALLOW_ORIGINS",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "https://app.example";

    fn is_refused(method: &str, headers: &[(&str, &str)], origins: &str) -> bool {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let outcome = check_origin(&request, &origins.parse().expect("origins"));
        assert!(outcome.as_ref().err().is_none_or(|problem| problem.is(Code::ForeignOrigin)));
        outcome.is_err()
    }

    #[test]
    fn only_pages_of_this_and_of_listed_origins_may_write() {
        let host = ("host", "me.example:8080");
        for (headers, refused) in [
            (vec![], false),
            (vec![("origin", "http://me.example:8080")], false),
            (vec![("origin", "HTTP://me.example:8080")], true),
            (vec![("origin", "http://ME.example:8080")], false),
            (vec![("origin", "http://me.example")], true),
            (vec![("origin", "http://me.example:8081")], true),
            (vec![("origin", "https://me.example:8080")], true),
            (vec![("origin", "https://me.example:8080"), ("x-forwarded-proto", "https")], false),
            (vec![("origin", "http://me.example:8080"), ("x-forwarded-proto", "https")], true),
            (vec![("origin", "https://me.example:8080"), ("sec-fetch-site", "same-origin")], false),
            (vec![("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "")], true),
            (vec![("origin", "null"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "http://evil.me.example:8080")], true),
            (vec![("origin", LISTED)], false),
            (vec![("origin", LISTED), ("sec-fetch-site", "cross-site")], false),
            (vec![("origin", LISTED), ("origin", "https://evil.example")], true),
            (vec![("origin", "http://me.example:8080"), ("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "")], true),
        ] {
            let headers = [vec![host], headers].concat();
            for method in ["POST", "PUT", "PATCH", "DELETE", "BREW"] {
                assert_eq!(is_refused(method, &headers, LISTED), refused, "{method} {headers:?}");
                assert!(!is_refused(method, &headers, "*"), "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(!is_refused(method, &headers, ""), "{method} {headers:?}");
            }
        }
    }

    #[test]
    fn default_ports_and_ipv6_are_compared_as_browsers_write_them() {
        for (host, origin, proto) in [
            ("me.example", "https://me.example", "https"),
            ("me.example:443", "https://me.example", "https"),
            ("me.example:80", "http://me.example", "http"),
            ("[::1]:8080", "http://[::1]:8080", "http"),
            ("[::1]", "http://[::1]", "http"),
        ] {
            let headers = [("host", host), ("origin", origin), ("x-forwarded-proto", proto)];
            assert!(!is_refused("POST", &headers, ""), "{headers:?}");
        }
        for (host, origin) in [("me.example:443", "http://me.example"), ("me.example:x", "http://me.example:x")] {
            assert!(is_refused("POST", &[("host", host), ("origin", origin)], ""), "{host} {origin}");
        }
        assert!(is_refused("POST", &[("origin", "http://me.example")], ""), "without Host nothing is our own");
    }
}
