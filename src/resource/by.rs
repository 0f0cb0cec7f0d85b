//! Who changes something, as the history records it.

use std::sync::Arc;

use warp::http::{HeaderMap, HeaderValue};

use crate::auth::principal::Principal;
use crate::http::request_id;

/// Who changes something, and in which request.
#[derive(Debug, Clone, Default)]
pub struct By {
    /// The name of the principal, if they have one.
    pub name: Option<Arc<str>>,
    /// The request's id, if it is one.
    pub request_id: Option<HeaderValue>,
}

impl By {
    /// Who asks with these headers.
    pub fn of(principal: &Principal, headers: &HeaderMap) -> Self {
        Self { name: principal.name.clone(), request_id: request_id::of(headers) }
    }

    /// What the history keeps of it: the name, and the request's id.
    pub fn recorded(&self) -> (Option<&str>, Option<&str>) {
        (self.name.as_deref(), self.request_id.as_ref().and_then(|id| id.to_str().ok()))
    }
}
