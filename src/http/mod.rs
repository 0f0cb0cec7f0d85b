//! Shared by all routes: matching URL templates, reading queries, bodies and preconditions, content negotiation, and problems.
//!
//! Independent of resources and SQL.

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
