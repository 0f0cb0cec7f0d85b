//! Built-in documentation: the OpenAPI document, a page to try out the API, and a page for each kind of problem.
//!
//! URLs: `/openapi.json`, `/docs` (Swagger UI), `/docs/problems`, `/docs/problems/{code}`, and the files of these pages.
//!
//! Invariants: everything is embedded in the binary, so that it works offline; the document is generated from the code, and a
//! test keeps docs/openapi.json equal to it.

pub mod document;
pub mod endpoints;
mod openapi;
mod problems;
pub mod routes;
mod urls;
