//! Cross-origin requests (CORS, Fetch standard, section 3.2): which other origins' pages may read responses.
//!
//! Disabled unless origins are configured; requests then skip this layer. Cookies and other credentials are never allowed,
//! because the API does not use them.

use std::str::FromStr;
use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue,
    ORIGIN, VARY,
};
use warp::http::{HeaderMap, Method, StatusCode};
use warp::reply::Response;

use super::route::Route;

/// What a script may send in addition to what any page may.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, authorization, content-encoding, content-type, database-lsn, idempotency-key, if-match, \
     if-none-match, prefer, traceparent, x-request-id",
);

/// What a script may read in addition to what any page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "accept-patch, allow, content-range, database-lsn, etag, idempotency-replayed, link, location, preference-applied, \
     ratelimit, ratelimit-policy, retry-after, server-timing, www-authenticate, x-request-id",
);

/// How long a browser may cache a preflight, in seconds; also how long an origin keeps access after it is removed from the
/// list.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// The route label of preflights in logs and metrics: they are answered before routing.
const PREFLIGHT: Route = Route("preflight");

/// The origins whose pages may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// No origin.
    None,
    /// Every origin.
    Any,
    /// The listed origins.
    Listed(Vec<HeaderValue>),
}

impl FromStr for Origins {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Ok(Self::None),
            "*" => Ok(Self::Any),
            list => list.split(',').map(|origin| read_origin(origin.trim())).collect::<Option<_>>().map(Self::Listed).ok_or(
                "expected * or origins separated by commas, each a scheme and a host without a path: https://app.example",
            ),
        }
    }
}

/// Parses an origin as browsers serialize it, because it is compared byte by byte: lower case, no path, no trailing slash.
fn read_origin(text: &str) -> Option<HeaderValue> {
    let (scheme, host) = text.split_once("://")?;
    let known = |allowed: &'static [u8]| {
        move |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || allowed.contains(&byte)
    };
    let fits = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(known(b"+-."))
        && !host.is_empty()
        && host.bytes().all(known(b"-._:[]"));
    // Browsers omit the default port of the scheme (HTML standard, "serialization of an origin").
    let own_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let text = text.strip_suffix(own_port).unwrap_or(text);
    fits.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// Wraps the routes: answers preflights, and allows pages of these origins to read responses.
pub fn with_cors(origins: Origins, routes: BoxedFilter<(Response,)>) -> BoxedFilter<(Response,)> {
    if origins == Origins::None {
        return routes;
    }
    let origins = Arc::new(origins);
    let asked = origins.clone();
    let preflight = warp::method().and(warp::header::headers_cloned()).and_then(move |method, headers| {
        std::future::ready(preflight(&asked, &method, &headers).ok_or_else(warp::reject::not_found))
    });
    let answered = warp::header::headers_cloned().and(routes).map(move |headers: HeaderMap, mut response: Response| {
        origins.add_headers(&headers, response.headers_mut());
        response
    });
    preflight.or(answered).unify().boxed()
}

/// The response to a preflight from an allowed origin; other requests are routed as usual.
fn preflight(origins: &Origins, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    origins.allowed(headers)?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.extensions_mut().insert(PREFLIGHT);
    let answer = response.headers_mut();
    origins.add_headers(headers, answer);
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(response)
}

impl Origins {
    /// The value of `Access-Control-Allow-Origin`, if the request's origin is allowed.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(ORIGIN)?;
        match self {
            Self::None => None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Listed(_) => self.lists(origin).then(|| origin.clone()),
        }
    }

    /// Returns true if the origin is listed.
    pub fn lists(&self, origin: &HeaderValue) -> bool {
        matches!(self, Self::Listed(listed) if listed.contains(origin))
    }

    /// Adds the CORS headers to a response.
    pub fn add_headers(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if let Self::Listed(_) = self {
            // Added for disallowed origins too; otherwise a cache could reuse a response across origins.
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = self.allowed(request) {
            answer.insert(TIMING_ALLOW_ORIGIN, origin.clone());
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        assert_eq!("".parse(), Ok(Origins::None));
        assert_eq!(" * ".parse(), Ok(Origins::Any));
        let listed = "https://app.example, http://localhost:3000,capacitor://localhost,http://[::1]:8080";
        assert!(matches!(listed.parse(), Ok(Origins::Listed(origins)) if origins.len() == 4));
        for (given, read) in [
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://[::443]", "https://[::443]"),
            ("https://app.example:80", "https://app.example:80"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://app.example:8080", "http://app.example:8080"),
        ] {
            assert_eq!(given.parse(), Ok(Origins::Listed(vec![HeaderValue::from_static(read)])), "{given}");
        }
        for wrong in [
            "app.example",
            "https://app.example/",
            "https://app.example/path",
            "HTTPS://app.example",
            "https://App.example",
            "https://",
            "://app.example",
            "null",
            "https://*.example",
            "https://a.example,",
            "https://a.example *",
            "*,https://a.example",
        ] {
            assert!(wrong.parse::<Origins>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_setting_can_be_parsed(text in ".*") {
            let _ = text.parse::<Origins>();
        }
    }
}
