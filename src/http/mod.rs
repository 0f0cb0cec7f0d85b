//! What routes share: matching a URL template, reading a body, answering, and describing a problem.
//!
//! No resource and no SQL is known here.

pub mod body;
pub mod problem;
pub mod reply;
pub mod route;
