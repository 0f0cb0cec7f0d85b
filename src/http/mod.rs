//! What routes share: matching a URL template, reading a query, a body or a condition, answering in the type asked for,
//! and describing a problem.
//!
//! No resource and no SQL is known here.

pub mod accept;
pub mod access;
pub mod asset;
pub mod body;
pub mod browser;
pub mod budget;
pub mod catalogue;
pub mod client;
pub mod code;
pub mod coding;
pub mod consistency;
pub mod cors;
pub mod csv;
pub mod describe;
pub mod endpoint;
pub mod etag;
pub mod format;
pub mod host;
pub mod json;
pub mod link;
pub mod prefer;
pub mod problem;
pub mod query;
pub mod reply;
pub mod request_id;
pub mod route;
pub mod schema;
pub mod spool;
pub mod target;
pub mod timing;
