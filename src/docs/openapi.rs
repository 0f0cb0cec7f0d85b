//! The documentation endpoints in the OpenAPI document.

use serde_json::json;
use utoipa::openapi::HttpMethod;

use super::urls::{OPENAPI, PAGE, PROBLEM, PROBLEMS};
use crate::http::catalogue;
use crate::http::describe::{Document, Operation, content, path};
use crate::http::problem::Code;
use crate::http::schema::{object, one_of, text};

/// Adds the operations of this module.
pub fn describe(document: &mut Document) {
    let get = |id, summary| Operation::new("Documentation", id, summary);
    let html = || [("text/html", content(text(), "<!doctype html>"))];
    let fields = object([("openapi", text(), true)]);
    let openapi = get("getOpenApi", "This document").response(
        200,
        "The OpenAPI document.",
        [("application/json", content(fields, json!({"openapi": "3.1.0"})))],
    );
    document.operation(HttpMethod::Get, OPENAPI, &openapi);
    let docs = get("getDocs", "Swagger UI, to explore and try out the API").response(200, "The page.", html());
    document.operation(HttpMethod::Get, PAGE, &docs);
    let problems = get("listProblems", "All kinds of problem").response(200, "The page.", html());
    document.operation(HttpMethod::Get, PROBLEMS, &problems);
    let codes = one_of(catalogue::all().map(|kind| kind.code));
    let problem = get("getProblem", "One kind of problem: cause and remedy")
        .with([path("code", codes, "the problem's code", "not-found")])
        .response(200, "The page.", html())
        .problems([Code::NotFound]);
    document.operation(HttpMethod::Get, PROBLEM, &problem);
}
