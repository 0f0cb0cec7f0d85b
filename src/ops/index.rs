//! What is served here, as plain text: the answer of `GET /` to everybody but browsers.

use std::fmt::Write;

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

/// The list.
pub fn text() -> String {
    let mut text = "pycrudapi\n".to_owned();
    for (title, endpoints) in ENDPOINTS {
        let _ = write!(text, "\n{title}\n"); // a String takes everything
        for (method, path, what) in *endpoints {
            let _ = writeln!(text, "  {method:<6} {path:<24} {what}");
        }
    }
    text
}
