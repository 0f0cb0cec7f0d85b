//! The identity endpoints in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::HttpMethod;

use super::routes::{PRINCIPAL, RESOURCE, Shown};
use crate::http::body::JSON;
use crate::http::describe::{Document, Operation, content};
use crate::http::problem::Code;
use crate::http::schema::{array_of, object, reference, text};

const TAG: &str = "Tokens";

/// Adds the operations of this module.
pub fn describe(document: &mut Document) {
    document.schema::<Shown>();
    let example = json!({
        "auth": "on",
        "credential": "token",
        "principal": "token:0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10",
        "scopes": ["passengers:read"],
        "expiresAt": "2027-02-24T18:13:38Z"
    });
    let principal = Operation::new(TAG, "getPrincipal", "The principal of the request and its scopes")
        .description("Works with and without credentials.")
        .response(200, "The principal.", [(JSON, content(reference::<Shown>(), example))])
        .problems([Code::Unauthenticated]);
    document.operation(HttpMethod::Get, PRINCIPAL, &principal);

    let members = [
        ("resource", text(), true),
        ("authorization_servers", array_of(text()), true),
        ("scopes_supported", array_of(text()), true),
        ("bearer_methods_supported", array_of(text()), true),
        ("resource_documentation", text(), true),
    ];
    let example = json!({
        "resource": "https://pycrudapi.example.com",
        "authorization_servers": ["https://id.example.com"],
        "scopes_supported": ["passengers:read"],
        "bearer_methods_supported": ["header"],
        "resource_documentation": "https://pycrudapi.example.com/docs"
    });
    let summary = "The identity provider that issues tokens (RFC 9728)";
    let resource = Operation::new(TAG, "getProtectedResourceMetadata", summary)
        .response(200, "The identity provider, and the existing scopes.", [(JSON, content(object(members), example))])
        .problems([Code::NotFound]);
    document.operation(HttpMethod::Get, RESOURCE, &resource);
}
