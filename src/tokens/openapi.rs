//! Tokens in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, RefOr, Schema};

use super::model::{Made, Shown};
use super::routes::{ROTATE, TOKEN, TOKENS};
use crate::auth::tokens::LIFETIME_DEFAULT;
use crate::http::body::JSON;
use crate::http::describe::{Document, Operation, content, path, query};
use crate::http::problem::Code;
use crate::http::schema::{array_of, integer, object, reference, text};
use crate::resource::column::leak;
use crate::resource::list::request::{PAGE_DEFAULT, PAGE_MAX};

const TAG: &str = "Tokens";
/// The id of the token in the examples.
const EXAMPLE: &str = "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10";

/// Adds the operations on tokens.
pub fn describe(document: &mut Document) {
    document.schema::<Shown>();
    document.schema::<Made>();

    let list = Operation::new(TAG, "listTokens", "List tokens")
        .description(leak(format!(
            "The oldest first, including revoked and expired ones, without their secrets. Without `limit`, a page of \
             {PAGE_DEFAULT}. `Link` has the URL of the next page."
        )))
        .with([
            query("limit", integer(1, PAGE_MAX as i64), "maximum number of tokens in the response", 100),
            query("after", text(), "tokens after the one with this id; taken from `Link`", EXAMPLE),
        ])
        .response(200, "The tokens.", [(JSON, content(array_of(reference::<Shown>()), json!([shown()])))])
        .header("Link", text(), "`rel=\"next\"`: the next page, if more tokens follow")
        .problems([Code::InvalidQuery, Code::NotFound]);
    document.operation(HttpMethod::Get, TOKENS, &list);

    let create = Operation::new(TAG, "createToken", "Create a token")
        .description(
            "Only this response contains the token. It is not stored for an `Idempotency-Key`: if the response is \
             lost, revoke the token and create another one.",
        )
        .request_body(
            true,
            "The properties of the token. It expires after 90 days unless `expires` is given; `never` means no expiry.",
            [(JSON, content(wanted(), json!({"name": "ci", "scopes": ["steps:create"], "expires": LIFETIME_DEFAULT})))],
        )
        .response(201, "The token, which is shown only once.", [(JSON, content(reference::<Made>(), made()))])
        .header("Location", text(), "the URL that revokes it")
        .problems([Code::InvalidJson, Code::InvalidFields, Code::NotFound]);
    document.operation(HttpMethod::Post, TOKENS, &create);

    let revoke = Operation::new(TAG, "revokeToken", "Revoke a token")
        .description("All servers refuse it within a second. Revoking it again has no effect.")
        .with([id()])
        .response(204, "It is revoked.", [])
        .problems([Code::InvalidUuid, Code::NotFound]);
    document.operation(HttpMethod::Delete, TOKEN, &revoke);

    let rotate = Operation::new(TAG, "rotateToken", "Replace a token by a new one")
        .description(
            "The new token has the same name, scopes and lifetime. The old one is revoked, immediately or after \
               `overlap`.",
        )
        .with([id()])
        .request_body(
            false,
            "How long the old token stays valid.",
            [(JSON, content(object([("overlap", text(), false)]), json!({"overlap": "1h"})))],
        )
        .response(201, "The new token, which is shown only once.", [(JSON, content(reference::<Made>(), made()))])
        .header("Location", text(), "the URL that revokes it")
        .problems([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields]);
    document.operation(HttpMethod::Post, ROTATE, &rotate);
}

fn id() -> Parameter {
    path("id", text(), "the id of the token, as in the list", EXAMPLE)
}

fn wanted() -> RefOr<Schema> {
    object([("name", text(), true), ("scopes", array_of(text()), true), ("expires", text(), false)])
}

fn shown() -> Value {
    json!({
        "id": EXAMPLE,
        "name": "ci",
        "scopes": ["steps:create"],
        "state": "active",
        "createdAt": "2026-11-26T18:13:38.123456Z",
        "createdBy": null,
        "expiresAt": "2027-02-24T18:13:38.123456Z",
        "revokedAt": null,
        "revokedBy": null,
        "lastUsedAt": "2026-11-26T19:00:00Z",
        "uses": 3
    })
}

fn made() -> Value {
    // The checksum is wrong, so that the example is never mistaken for a token.
    let mut made = json!({"token": "pycrudapi_0000000000000000000000000000000000000000000000000"});
    let members = made.as_object_mut().expect("an object");
    members.extend(shown().as_object().expect("an object").clone());
    made
}
