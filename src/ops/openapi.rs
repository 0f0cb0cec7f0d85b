//! Greetings and probes in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::{HttpMethod, RefOr, Schema};

use super::health::{EXCLUDE, GREETINGS, LIVE, POSTGRES, READY, Readiness};
use crate::http::body::JSON;
use crate::http::describe::{Document, Operation, content, query};
use crate::http::problem::Code;
use crate::http::schema::{object, one_of, reference, text};

const TAG: &str = "Operations";
const TEXT: &str = "text/plain";

/// Adds the operations of this module.
pub fn describe(document: &mut Document) {
    document.schema::<Readiness>();
    let greeting = |path: &str| -> (&'static str, RefOr<Schema>, Value, &'static str) {
        match path {
            "/zero" => ("getZero", object([("0", text(), true)]), json!({"0": ""}), JSON),
            "/helloworld" => ("getHelloWorld", text(), json!("Hello World!"), TEXT),
            _ => ("getHello", object([("message", text(), true)]), json!({"message": "ok"}), JSON),
        }
    };
    for template in GREETINGS {
        let (id, schema, example, media_type) = greeting(template);
        let greet = Operation::new(TAG, id, "A greeting").response(
            200,
            "A constant greeting.",
            [(media_type, content(schema, example))],
        );
        document.operation(HttpMethod::Get, &[template], &greet);
    }

    let live = Operation::new(TAG, "getLiveness", "Whether the process is alive")
        .description("Checks nothing else.")
        .response(
            200,
            "It is alive.",
            [(JSON, content(object([("status", text(), true)]), json!({"status": "live"})))],
        );
    document.operation(HttpMethod::Get, LIVE, &live);

    let checks =
        json!({"status": "ready", "auth": "off", "checks": {"postgres": "ok", "migrations": "ok", "shutdown": "ok"}});
    let ready = Operation::new(TAG, "getReadiness", "Whether it can serve, check by check")
        .description(
            "Otherwise 503, with the same `checks` in the problem. Load balancers should use `exclude=postgres`, so \
             that a replica is not removed when PostgreSQL, which all replicas share, is unreachable.",
        )
        .with([query(EXCLUDE, one_of([POSTGRES]), "excludes the check of PostgreSQL", POSTGRES)])
        .response(200, "It can serve.", [(JSON, content(reference::<Readiness>(), checks))])
        .problems([Code::InvalidQuery]);
    document.operation(HttpMethod::Get, READY, &ready);
}
