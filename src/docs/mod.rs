//! Documentation that the service carries with it: what the API is, a page to try it out, and a page for each problem.
//!
//! URLs: `/openapi.json`, `/docs` (Swagger UI), `/docs/problems`, `/docs/problems/{code}`, and the files of these pages.
//!
//! Invariants: everything comes out of the binary and nothing from elsewhere, so it works without internet; the document
//! is written from the code, and docs/openapi.json is a copy of it that a test keeps equal.

pub mod document;
pub mod endpoints;
mod openapi;
mod problems;
pub mod routes;
mod urls;
