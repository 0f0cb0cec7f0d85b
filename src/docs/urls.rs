//! The URLs of the documentation.

pub(super) const OPENAPI: &[&str] = &["/openapi.json"];
pub(super) const PROBLEMS: &[&str] = &["/docs/problems"];
pub(super) const PROBLEM: &[&str] = &["/docs/problems/{code}"];
pub(super) const PAGE: &[&str] = &["/docs"];
