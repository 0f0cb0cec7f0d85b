//! Normalizes request targets: percent-encoded unreserved characters are decoded (RFC 3986, section 6.2.2.2), and trailing
//! slashes are removed.

use std::future::ready;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::http::header::{HeaderValue, LOCATION};
use warp::http::uri::PathAndQuery;
use warp::http::{StatusCode, Uri};
use warp::reply::Response;

use crate::hexadecimal;

/// The target with a path in which no unreserved character is percent-encoded; `None` if the path has that form already.
pub fn normal(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains('%') {
        return None;
    }
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        decoded.push_str(before);
        let byte = behind.get(..2).and_then(|digits| hexadecimal::byte(digits.as_bytes()));
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                decoded.push(byte.into());
                rest = &behind[2..];
            }
            None => {
                decoded.push('%');
                rest = behind;
            }
        }
    }
    decoded.push_str(rest);
    if let Some(query) = uri.query() {
        decoded.push('?');
        decoded.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(decoded).ok()?);
    Uri::from_parts(parts).ok()
}

/// Redirects a path with a trailing slash to the path without it, with its query; the status 308 preserves the method. The last
/// alternative: except for the root, no route ends in a slash.
pub fn without_slash() -> BoxedFilter<(Response,)> {
    warp::path::full()
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and_then(|path: FullPath, query: String| {
            ready(redirect(path.as_str(), &query).ok_or_else(warp::reject::not_found))
        })
        .boxed()
}

fn redirect(path: &str, query: &str) -> Option<Response> {
    let shorter = path.strip_suffix('/')?.trim_end_matches('/');
    // Browsers treat two leading slashes, or a slash and a backslash, as the start of a host name.
    if shorter.is_empty() || shorter.starts_with("//") || shorter.contains('\\') {
        return None;
    }
    let mark = if query.is_empty() { "" } else { "?" };
    let mut response = Response::default();
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from([shorter, mark, query].concat()).ok()?);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreserved_characters_are_decoded_in_the_path_alone() {
        for (given, normal_form) in [
            ("/v1/%70assengers?name=%70", Some("/v1/passengers?name=%70")),
            ("/a%2Db%2db%5F%7e%2E", Some("/a-b-b_~.")),
            ("/%41%5A%61%7A%30%39?", Some("/AZaz09?")),
            ("/a%2Fb%20c%25%22", Some("/a%2Fb%20c%25%22")),
            ("/%2", Some("/%2")),
            ("/%é%zz%%41", Some("/%é%zz%A")),
            ("/%2541", Some("/%2541")), // decoded once, not twice
            ("/a?%41", None),
            ("/a", None),
        ] {
            let uri: Uri = given.parse().expect("a target");
            assert_eq!(normal(&uri).map(|uri| uri.to_string()).as_deref(), normal_form, "{given}");
        }
        let absolute: Uri = "http://me.example/%68?a".parse().expect("a target");
        assert_eq!(normal(&absolute).expect("another form"), "http://me.example/h?a");
    }

    #[test]
    fn no_redirect_leads_to_another_host() {
        let location = |path, query| {
            let response = redirect(path, query)?;
            Some(response.headers()[LOCATION].to_str().expect("ASCII").to_owned())
        };
        assert_eq!(location("/v1/passengers/", "a=1&b"), Some("/v1/passengers?a=1&b".to_owned()));
        assert_eq!(location("/v1/passengers//", ""), Some("/v1/passengers".to_owned()));
        for path in ["/", "//", "/a", "//evil.example/", "///evil.example/", "/\\evil.example/"] {
            assert_eq!(location(path, ""), None, "{path}");
        }
    }
}
