//! The plain-text list of endpoints that `GET /` returns to all clients but browsers.

use std::fmt::Write;

use crate::resource::definition::Resource;
use crate::resource::registry::Resources;

/// One endpoint: its method, path and description.
type Endpoint = (&'static str, &'static str, &'static str);

/// The endpoints by resource.
const ENDPOINTS: &[(&str, &[Endpoint])] = &[
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
            ("POST", "/v1/steps", "record a step that starts now: component, version, owner, status"),
            ("GET", "/v1/steps", "list them as CSV, or as JSON with ?format=json"),
            ("GET", "/v1/steps/durations", "the duration of each step, or per status with ?summary=true"),
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
            ("GET", "/docs", "the API documentation, with a form to try it out"),
            ("GET", "/openapi.json", "the same for programs (OpenAPI 3.1)"),
            ("GET", "/docs/problems", "every kind of problem, with cause and remedy"),
        ],
    ),
];

/// The whole list.
pub fn text(resources: Resources) -> String {
    let mut text = "pycrudapi\n".to_owned();
    let mut part = |title: &str, endpoints: &[(&str, &str, &str)]| {
        let _ = write!(text, "\n{title}\n"); // writing to a String cannot fail
        for (method, path, what) in endpoints {
            let _ = writeln!(text, "  {method:<6} {path:<24} {what}");
        }
    };
    for resource in resources {
        part(resource.title, &endpoints(resource));
    }
    for (title, endpoints) in ENDPOINTS {
        part(title, endpoints);
    }
    text
}

/// The endpoints of a resource, the canonical URLs first.
fn endpoints(resource: &Resource) -> Vec<Endpoint> {
    let urls = &resource.urls;
    let operations: [(&str, &[&'static str], &str); 7] = [
        ("GET", urls.list, "list one page, with filters and order"),
        ("GET", urls.statistics, "statistics of groups of rows"),
        ("POST", urls.create, "create one, or many: a JSON array, CSV or NDJSON"),
        ("GET", urls.read, "read one"),
        ("PUT", urls.replace, "replace one"),
        ("PATCH", urls.patch, "set some fields of one"),
        ("DELETE", urls.delete, "delete one"),
    ];
    let canonical = operations.iter().filter_map(|(method, urls, what)| Some((*method, *urls.first()?, *what)));
    let short = operations.iter().flat_map(|(method, urls, what)| {
        let what =
            if *method == "GET" && urls.first().is_some_and(|url| !url.contains('{')) { "list all" } else { what };
        urls.iter().skip(1).map(move |url| (*method, *url, what))
    });
    canonical.chain(short).collect()
}
