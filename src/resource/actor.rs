//! The actor of a change, as the history records it.

use std::sync::Arc;

use warp::http::{HeaderMap, HeaderValue};

use crate::auth::principal::Principal;
use crate::http::request_id;

/// Who makes a change, and in which request.
#[derive(Debug, Clone, Default)]
pub struct Actor {
    /// The name of the principal, if it has one.
    pub name: Option<Arc<str>>,
    /// The request id, if it is valid.
    pub request_id: Option<HeaderValue>,
}

impl Actor {
    /// The actor of a request.
    pub fn of(principal: &Principal, headers: &HeaderMap) -> Self {
        Self { name: principal.name.clone(), request_id: request_id::of(headers) }
    }

    /// The values that the history records: the name and the request id.
    pub fn recorded(&self) -> (Option<&str>, Option<&str>) {
        (self.name.as_deref(), self.request_id.as_ref().and_then(|id| id.to_str().ok()))
    }
}
