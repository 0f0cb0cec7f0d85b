//! Tokens in the OpenAPI document.

use serde_json::{Value, json};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{HttpMethod, RefOr, Schema};

use super::model::{Made, Shown};
use super::routes::{ROTATE, TOKEN, TOKENS};
use crate::auth::tokens::LIFETIME_DEFAULT;
use crate::http::body::JSON;
use crate::http::describe::{Document, Operation, content, path};
use crate::http::problem::Code;
use crate::http::schema::{array_of, object, reference, text};

const TAG: &str = "Tokens";

/// Adds the operations on tokens.
pub fn describe(document: &mut Document) {
    document.schema::<Shown>();
    document.schema::<Made>();

    let list = Operation::new(TAG, "listTokens", "List all tokens")
        .says("The oldest first, with those that were revoked or have expired; never a token itself.")
        .answers(200, "The tokens.", [(JSON, content(array_of(reference::<Shown>()), json!([shown()])))])
        .fails([Code::NotFound]);
    document.operation(HttpMethod::Get, TOKENS, &list);

    let create = Operation::new(TAG, "createToken", "Make a token")
        .says(
            "The token is in this answer and nowhere else. No answer is kept for an `Idempotency-Key`: revoke a token whose \
             answer was lost, and make another.",
        )
        .takes(
            true,
            "What it is to be; it expires after 90 days unless `expires` says otherwise, `never` for no end.",
            [(JSON, content(wanted(), json!({"name": "ci", "scopes": ["steps:create"], "expires": LIFETIME_DEFAULT})))],
        )
        .answers(201, "The token, this once.", [(JSON, content(reference::<Made>(), made()))])
        .header("Location", text(), "the URL that revokes it")
        .fails([Code::InvalidJson, Code::InvalidFields, Code::NotFound]);
    document.operation(HttpMethod::Post, TOKENS, &create);

    let revoke = Operation::new(TAG, "revokeToken", "Revoke a token")
        .says("Every server refuses it within a second. Again is harmless.")
        .with([id()])
        .answers(204, "It is revoked.", [])
        .fails([Code::InvalidUuid, Code::NotFound]);
    document.operation(HttpMethod::Delete, TOKEN, &revoke);

    let rotate = Operation::new(TAG, "rotateToken", "Make another token in the place of one")
        .says("With the same name, scopes and lifetime. The old one is revoked, at once or after `overlap`.")
        .with([id()])
        .takes(
            false,
            "How long the old one can still be used.",
            [(JSON, content(object([("overlap", text(), false)]), json!({"overlap": "1h"})))],
        )
        .answers(201, "The new token, this once.", [(JSON, content(reference::<Made>(), made()))])
        .header("Location", text(), "the URL that revokes it")
        .fails([Code::InvalidUuid, Code::NotFound, Code::InvalidJson, Code::InvalidFields]);
    document.operation(HttpMethod::Post, ROTATE, &rotate);
}

fn id() -> Parameter {
    path("id", text(), "the id of the token, as the list has it", "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10")
}

fn wanted() -> RefOr<Schema> {
    object([("name", text(), true), ("scopes", array_of(text()), true), ("expires", text(), false)])
}

fn shown() -> Value {
    json!({
        "id": "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10",
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
    // Well-formed but for its checksum, so that nobody takes it for a token.
    let mut made = json!({"token": "pycrudapi_0000000000000000000000000000000000000000000000000"});
    let members = made.as_object_mut().expect("an object");
    members.extend(shown().as_object().expect("an object").clone());
    made
}
