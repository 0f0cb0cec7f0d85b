//! The identity endpoints: filters and handlers.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{CACHE_CONTROL, HeaderValue};
use warp::reply::Response;

use crate::auth::scope::{Access, Scopes};
use crate::auth::sign_in::SignIn;
use crate::http::access::{METADATA, origin};
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::problem::{Code, Problem};
use crate::http::reply;
use crate::http::route::{Matched, at, get_or_head, method_not_allowed};

pub(super) const PRINCIPAL: &[&str] = &["/v1/principal"];
pub(super) const RESOURCE: &[&str] = &[METADATA];

/// The endpoints of this module.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: PRINCIPAL, methods: &[("GET", Access::Anybody)] },
    Endpoint { templates: RESOURCE, methods: PUBLIC },
];

/// What the handlers report.
pub struct Context {
    /// Whether credentials are checked.
    pub auth: &'static str,
    /// The identity provider.
    pub issuer: Option<String>,
    /// The scopes that routes require.
    pub scopes: Vec<String>,
    /// How pages sign users in, if they can.
    pub sign_in: Option<SignIn>,
}

/// The principal of a request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Principal)]
pub struct Shown {
    /// Whether credentials are checked: `on` or `off`.
    auth: &'static str,
    /// `anonymous`, `token` or `issuer`.
    credential: &'static str,
    /// The name in history and logs; null without credentials.
    principal: Option<String>,
    /// The permitted scopes.
    scopes: Vec<String>,
    /// When the credential expires.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// How a page signs a user in at the identity provider; absent if tokens are pasted instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    sign_in: Option<SignIn>,
}

/// All routes of this module.
pub fn routes(context: Context) -> BoxedFilter<(Response,)> {
    let context = Arc::new(context);
    let principal = {
        let context = context.clone();
        at(PRINCIPAL).and(get_or_head()).then(move |matched: Matched| {
            let shown = principal(&matched, &context);
            async move { matched.answer(async { Ok(shown) }).await }
        })
    };
    let resource = at(RESOURCE).and(get_or_head()).and(warp::header::headers_cloned()).then(
        move |matched: Matched, headers: HeaderMap| {
            let document = resource(&headers, &context);
            async move { matched.answer(async { document }).await }
        },
    );
    principal.or(resource).unify().or(method_not_allowed(ENDPOINTS)).unify().boxed()
}

fn principal(matched: &Matched, context: &Context) -> Response {
    let principal = matched.principal();
    let scopes = if matched.is_guarded() { principal.scopes.clone() } else { Scopes::everything() };
    let mut response = reply::json(&Shown {
        auth: context.auth,
        credential: principal.kind.label(),
        principal: principal.name.as_deref().map(str::to_owned),
        scopes: scopes.to_string().split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        sign_in: context.sign_in.clone(),
        expires_at: principal.expires.and_then(|at| Timestamp::try_from(at).ok()).map(|at| at.to_string()),
    });
    // The response depends on the credentials, even for a cache that ignores Authorization.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn resource(headers: &HeaderMap, context: &Context) -> Result<Response, Problem> {
    let Some(issuer) = &context.issuer else {
        return Err(Problem::new(
            Code::NotFound,
            "no identity provider is configured; the operator creates tokens with `pycrudapi token create`",
        ));
    };
    Ok(reply::json(&json!({
        "resource": origin(headers),
        "authorization_servers": [issuer],
        "scopes_supported": context.scopes,
        "bearer_methods_supported": ["header"],
        "resource_documentation": format!("{}/docs", origin(headers)),
    })))
}
