//! `GET /`: what is served here, as a page for browsers and as plain text for everybody else.
//!
//! Both are written from one list. The page needs nothing but itself, so its content security policy forbids the rest.

use std::fmt::Write;

use bytes::Bytes;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_SECURITY_POLICY, HeaderValue, VARY};
use warp::reply::Response;

use crate::http::accept;
use crate::http::reply;
use crate::http::route::{Allowed, Matched, answer, at, get_or_head, method_not_allowed};

pub(super) const INDEX: &[&str] = &["/"];
/// Each template with the methods that it takes.
pub const ALLOWED: Allowed = &[(INDEX, "GET, HEAD")];

const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");

/// One operation: its method, its path, and what it does.
type Endpoint = (&'static str, &'static str, &'static str);

/// What is served, by resource.
const ENDPOINTS: &[(&str, &[Endpoint])] = &[
    (
        "Passengers",
        &[
            ("GET", "/v1/passengers", "a page of them, by condition and order: ?age=gte.30"),
            ("GET", "/v1/passengers/stats", "count, survival and means, ?by=passengerClass,sex"),
            ("POST", "/v1/passengers", "create one, or many: a JSON array, CSV or NDJSON"),
            ("GET", "/v1/passengers/{uuid}", "read one"),
            ("PUT", "/v1/passengers/{uuid}", "replace one"),
            ("PATCH", "/v1/passengers/{uuid}", "set some fields of one"),
            ("DELETE", "/v1/passengers/{uuid}", "delete one"),
            ("GET", "/passengerlist", "all of them (short URL)"),
            ("POST", "/postpassenger", "create one (short URL)"),
            ("GET", "/getpassenger/{uuid}", "read one (short URL)"),
            ("PUT", "/putpassenger/{uuid}", "replace one (short URL)"),
            ("DELETE", "/deletepassenger/{uuid}", "delete one (short URL)"),
        ],
    ),
    (
        "Air quality",
        &[
            ("GET", "/v1/air-quality", "readings by station as JSON, or as CSV with ?format=csv"),
            ("GET", "/air_quality", "the same (short URL)"),
            ("GET", "/api/v1/measures/air", "the same (short URL)"),
        ],
    ),
    (
        "Deployment steps",
        &[
            ("POST", "/v1/steps", "record one that begins now: component, version, owner, status"),
            ("GET", "/v1/steps", "list them as CSV, or as JSON with ?format=json"),
            ("GET", "/v1/steps/durations", "how long each lasted, and per status with ?summary=true"),
        ],
    ),
    (
        "Operations",
        &[
            ("GET", "/hello", "a greeting"),
            ("GET", "/helloworld", "a greeting in plain text"),
            ("GET", "/zero", "a greeting"),
            ("GET", "/livez", "whether the process is alive"),
            ("GET", "/readyz", "whether it can serve, check by check"),
        ],
    ),
    (
        "Documentation",
        &[
            ("GET", "/docs", "the API, to read about and to try out"),
            ("GET", "/openapi.json", "the same for programs (OpenAPI 3.1)"),
            ("GET", "/docs/problems", "every kind of problem, with cause and remedy"),
        ],
    ),
];

/// The routes of this module.
pub fn routes() -> BoxedFilter<(Response,)> {
    let (page, text) = (Bytes::from(page()), Bytes::from(text()));
    at(INDEX)
        .and(get_or_head())
        .and(warp::header::headers_cloned())
        .then(move |matched: Matched, headers: HeaderMap| {
            let response = if accept::names(&headers, "text/html") {
                reply::ok("text/html; charset=utf-8", page.clone())
            } else {
                reply::ok("text/plain; charset=utf-8", text.clone())
            };
            answer(matched.route, async { Ok(described(response)) })
        })
        .or(method_not_allowed(ALLOWED))
        .unify()
        .boxed()
}

fn described(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn text() -> String {
    let mut text = "pycrudapi\n".to_owned();
    for (title, endpoints) in ENDPOINTS {
        let _ = write!(text, "\n{title}\n"); // a String takes everything
        for (method, path, what) in *endpoints {
            let _ = writeln!(text, "  {method:<6} {path:<24} {what}");
        }
    }
    text
}

/// The list holds no character that HTML would need escaped, which a test makes sure of.
fn page() -> String {
    let mut page = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
        <meta name=\"color-scheme\" content=\"light dark\">\n<title>pycrudapi</title>\n</head>\n<body>\n<main>\n\
        <h1>pycrudapi</h1>\n<p>What is served here. Errors are <code>application/problem+json</code> and say what to do.</p>\n"
        .to_owned();
    for (title, endpoints) in ENDPOINTS {
        let _ = write!(page, "<h2>{title}</h2>\n<ul>\n"); // a String takes everything
        for (method, path, what) in *endpoints {
            let address = if *method == "GET" && !path.contains('{') {
                format!("<a href=\"{path}\"><code>{method} {path}</code></a>")
            } else {
                format!("<code>{method} {path}</code>")
            };
            let _ = writeln!(page, "<li>{address}: {what}</li>");
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_list_the_same_and_need_no_escapes() {
        let (page, text) = (page(), text());
        for (method, path, what) in ENDPOINTS.iter().flat_map(|(_, endpoints)| *endpoints) {
            assert!(page.contains(&format!("{method} {path}</code>")), "{path}");
            assert!(text.contains(path) && text.contains(what), "{path}");
            assert!(![*method, *path, *what].concat().contains(['<', '>', '&', '"']), "{path}");
        }
    }
}
