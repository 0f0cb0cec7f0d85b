//! The OpenAPI document, joined from the descriptions of all modules.

use bytes::Bytes;
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApiBuilder, ServerBuilder};

use super::endpoints;
use crate::auth::sign_in::SignIn;
use crate::http::describe::Document;
use crate::http::endpoint::AccessTable;
use crate::http::problem;
use crate::resource::registry::Resources;
use crate::{air_quality, docs, identity, ops, pages, resource, steps, tokens};

const DESCRIPTION: &str = "Passengers, air quality and deployment steps over HTTP, on PostgreSQL.\n\nAn operation has \
                           one canonical URL and may have short ones from the systems that this service replaces; \
                           they behave identically. `HEAD` responds like `GET`, without the body.\n\nEvery error is \
                           `application/problem+json` (RFC 9457). Its `code` is stable, and its `type` is the URL of \
                           a page that explains what to do: see [all problems](/docs/problems). In addition to the \
                           responses listed for each operation, a request that violates HTTP may receive 403, 405, \
                           421, 501 or 505, in the same format.";

/// The document as JSON, for these resources and this sign-in configuration.
pub fn json(resources: Resources, sign_in: Option<&SignIn>) -> Bytes {
    let mut document = Document::new(AccessTable::new(endpoints::operations(resources)), sign_in);
    document.schema::<problem::Document<'_>>();
    for resource in resources {
        resource::openapi::describe(resource, &mut document);
    }
    air_quality::openapi::describe(&mut document);
    steps::openapi::describe(&mut document);
    identity::openapi::describe(&mut document);
    tokens::openapi::describe(&mut document);
    ops::openapi::describe(&mut document);
    docs::openapi::describe(&mut document);
    pages::routes::describe(&mut document);
    let (paths, components) = document.finish();
    let info = InfoBuilder::new()
        .title("pycrudapi")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()));
    let openapi = OpenApiBuilder::new()
        .info(info)
        // Relative to the document's URL, so that it is correct for every host name and port.
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components))
        .build();
    let mut json = openapi.to_pretty_json().expect("the document has string keys only");
    json.push('\n');
    json.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::resource::registry;

    #[test]
    fn the_schemas_that_no_resource_may_have_are_those_of_a_document_without_resources() {
        let document: Value = serde_json::from_slice(&json(&[], None)).expect("JSON");
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let names: Vec<&str> = schemas.keys().map(String::as_str).collect();
        assert_eq!(names, registry::RESERVED_SCHEMAS);
    }

    const COMMITTED: &str = include_str!("../../docs/openapi.json");

    fn resources() -> Resources {
        registry::load(None, None).expect("the built-in descriptions are right")
    }

    fn built_in() -> Bytes {
        json(resources(), None)
    }

    fn document() -> Value {
        serde_json::from_slice(&built_in()).expect("JSON")
    }

    /// Operations such as `GET /v1/passengers`, as routed.
    fn routed() -> BTreeSet<String> {
        let mut routed = BTreeSet::new();
        for endpoint in endpoints::operations(resources()) {
            for (method, _) in endpoint.methods {
                routed.extend(endpoint.templates.iter().map(|template| format!("{method} {template}")));
            }
        }
        routed
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("an item").iter();
            methods.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        });
        operations.collect()
    }

    #[test]
    fn exactly_the_routed_operations_are_documented() {
        let document = document();
        let documented: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
        assert_eq!(documented, routed());
    }

    #[test]
    fn every_operation_has_its_name_an_example_and_its_problems() {
        let document = document();
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{name}: the id is taken");
            assert!(operation["summary"].is_string(), "{name}");
            let responses = operation["responses"].as_object().expect("responses");
            for status in ["429", "500", "503"] {
                assert!(responses.contains_key(status), "{name} does not say {status}");
            }
            for (status, response) in responses.iter().filter(|(status, _)| status.starts_with('2')) {
                let contents = response["content"].as_object();
                assert!(contents.is_some() || status == "204", "{name}: {status} has no content");
                for (media_type, content) in contents.into_iter().flatten() {
                    assert!(!content["example"].is_null(), "{name}: {media_type} has no example");
                }
            }
            for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                assert!(!content["example"].is_null(), "{name}: a body of {media_type} has no example");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let described = parameter["description"].as_str().is_some_and(|text| text.contains("; example: `"));
                assert!(described || !parameter["example"].is_null(), "{name}: {parameter} has no example");
            }
        }
    }

    #[test]
    fn the_log_position_is_documented_where_a_replica_uses_it() {
        let document = document();
        let mut readers = BTreeSet::new();
        for (name, operation) in operations(&document) {
            let takes = operation["parameters"].as_array().into_iter().flatten().any(|of| of["name"] == "Database-LSN");
            if takes {
                readers.insert(name.clone());
            }
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let returned = !response["headers"]["Database-LSN"].is_null();
                let is_change = !name.starts_with("GET ") && status.starts_with('2');
                assert_eq!(returned, is_change, "{name}: {status}");
            }
        }
        let expected = ["/passengerlist", "/v1/passengers", "/v1/passengers/stats", "/v1/steps", "/v1/steps/durations"];
        assert_eq!(readers, expected.map(|path| format!("GET {path}")).into());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            if let Some(reference) = value["$ref"].as_str() {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
            let children: Box<dyn Iterator<Item = &Value>> = match value {
                Value::Array(items) => Box::new(items.iter()),
                Value::Object(members) => Box::new(members.values()),
                _ => Box::new(std::iter::empty()),
            };
            children.for_each(|child| walk(child, document));
        }
        let document = document();
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
        walk(&document, &document);
    }

    #[test]
    fn the_committed_copy_is_this_document() {
        let same = COMMITTED.as_bytes() == built_in();
        assert!(same, "docs/openapi.json is out of date: cargo run -- openapi > docs/openapi.json");
    }
}
