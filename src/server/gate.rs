//! Authorizes requests: a request reaches its route only if its credentials permit the access that the route requires.
//!
//! Runs before routing: of a refused request only the head is read, and nothing that it refers to is looked up.

use std::sync::Arc;

use metrics::Counter;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Request};
use warp::reply::Response;

use super::quota::PrincipalQuota;
use crate::auth::authenticator::Authenticator;
use crate::auth::issuer::rules::Refused;
use crate::auth::principal::{Kind, Principal};
use crate::auth::scope::Access;
use crate::http::access::Denied;
use crate::http::client::Client;
use crate::http::endpoint::AccessTable;
use crate::http::route::{Caller, InvalidCredentials, RateLimit, Route};

const SCHEME: &str = "bearer";

/// Authenticates and authorizes requests.
pub struct Gate {
    authenticator: Authenticator,
    table: AccessTable,
    /// Whether an identity provider is configured.
    has_issuer: bool,
    /// The request quota of principals.
    quota: Option<PrincipalQuota>,
    /// Counters of permitted requests, by the number of the principal's kind: looked up once, because that costs more than
    /// counting.
    permitted: [Counter; Kind::ALL.len()],
}

/// The authorized caller, or the refusal.
pub type Decision = Result<Caller, Box<Refusal>>;

/// A refused request.
pub struct Refusal {
    /// The reason.
    pub denied: Denied,
    /// The route that it was for.
    pub target: Target,
    /// The principal, if known.
    pub principal: Option<Arc<Principal>>,
    /// The remaining quota, if requests are counted.
    rate_limit: Option<RateLimit>,
}

/// The target of a request.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The template of the route.
    pub template: &'static str,
    /// The access that the route requires.
    pub access: Access,
    /// The client that sent the request.
    client: Client,
}

/// The result of a check without I/O.
pub enum Admission {
    /// The request is authorized or refused.
    Decided(Decision),
    /// The token must be looked up first.
    NeedsLookup(PendingLookup),
}

/// A request whose token must be looked up.
pub struct PendingLookup {
    token: String,
    target: Target,
}

impl Gate {
    /// A gate for the routes of an access table.
    pub fn new(
        authenticator: Authenticator,
        table: AccessTable,
        has_issuer: bool,
        quota: Option<PrincipalQuota>,
    ) -> Self {
        let permitted = Kind::ALL.map(|kind| counter(kind.label(), "permitted"));
        Self { authenticator, table, has_issuer, quota, permitted }
    }

    /// Decides about a request as far as possible without I/O.
    pub fn admit<B>(&self, request: &Request<B>) -> Admission {
        let anonymous = || self.authenticator.anonymous().clone();
        let through = |template| Caller { principal: anonymous(), template, access: Access::Public, rate_limit: None };
        let Some((template, access)) = self.table.find(request.method(), request.uri().path()) else {
            // No route matches, so there is nothing to protect.
            return Admission::Decided(Ok(through(None)));
        };
        if access == Access::Public {
            return Admission::Decided(Ok(through(Some(template))));
        }
        let target = Target { template, access, client: Client::of(request.headers()) };
        Admission::Decided(match token(request.headers()) {
            Ok(None) => self.authorize(anonymous(), target),
            Ok(Some(token)) => match self.authenticator.known(token) {
                Some(found) => self.found(found, target),
                // A lookup costs more than a request, so an address that sends made-up tokens is limited by its quota.
                None => match self.quota.as_ref().map_or(Ok(()), |quota| quota.take_look_up(target.client)) {
                    Ok(()) => return Admission::NeedsLookup(PendingLookup { token: token.to_owned(), target }),
                    Err(seconds) => Err(refusal(Denied::TooManyTokens(seconds), target, None, None)),
                },
            },
            Err(why) => Err(self.invalid(why, target)),
        })
    }

    /// Decides about a request whose token must be looked up.
    pub async fn look_up(&self, pending: PendingLookup) -> Decision {
        let found = self.authenticator.verify(&pending.token).await;
        self.found(found, pending.target)
    }

    /// The response to a refused request with these headers.
    pub fn answer(&self, headers: &HeaderMap, refusal: Refusal) -> Response {
        let Refusal { denied, target: Target { template, access, .. }, principal, rate_limit } = refusal;
        let mut response = denied.problem(access, headers, self.has_issuer).into_response();
        response.extensions_mut().insert(Route(template));
        if let Some(limit) = rate_limit {
            limit.add_to(response.headers_mut());
        }
        match principal {
            Some(principal) => {
                response.extensions_mut().insert(Caller { principal, template: Some(template), access, rate_limit });
            }
            None => drop(response.extensions_mut().insert(InvalidCredentials)),
        }
        response
    }

    /// Writes pending data; called at the end, when no requests are left.
    pub async fn finish(&self) {
        self.authenticator.finish().await;
    }

    fn found(&self, found: Result<Arc<Principal>, Refused>, target: Target) -> Decision {
        match found {
            Ok(principal) => self.authorize(principal, target),
            Err(Refused::Invalid(why)) => Err(self.invalid(why, target)),
            Err(Refused::Unavailable) => Err(refusal(Denied::Unavailable, target, None, None)),
        }
    }

    /// A request with an invalid token counts against the quota of its address.
    fn invalid(&self, why: &'static str, target: Target) -> Box<Refusal> {
        match self.take(self.authenticator.anonymous(), target) {
            Ok(rate_limit) => refusal(Denied::Invalid(why), target, None, rate_limit),
            Err(refusal) => refusal,
        }
    }

    fn authorize(&self, principal: Arc<Principal>, target: Target) -> Decision {
        let rate_limit = self.take(&principal, target)?;
        if !principal.scopes.permit(target.access) {
            let denied = if principal.name.is_none() { Denied::NoCredentials } else { Denied::Insufficient };
            return Err(refusal(denied, target, Some(principal), rate_limit));
        }
        self.permitted[principal.kind as usize].increment(1);
        Ok(Caller { principal, template: Some(target.template), access: target.access, rate_limit })
    }

    /// Counts a request against the principal's quota, if one is configured.
    fn take(&self, principal: &Arc<Principal>, target: Target) -> Result<Option<RateLimit>, Box<Refusal>> {
        let Some(quota) = &self.quota else { return Ok(None) };
        quota
            .take(principal, target.client)
            .map(Some)
            .map_err(|(limit, seconds)| refusal(Denied::TooMany(limit, seconds), target, Some(principal.clone()), None))
    }
}

fn refusal(
    denied: Denied,
    target: Target,
    principal: Option<Arc<Principal>>,
    rate_limit: Option<RateLimit>,
) -> Box<Refusal> {
    counter(principal.as_ref().map_or("invalid", |principal| principal.kind.label()), denied.label()).increment(1);
    Box::new(Refusal { denied, target, principal, rate_limit })
}

fn counter(credential: &'static str, result: &'static str) -> Counter {
    metrics::counter!("auth_requests_total", "credential" => credential, "result" => result)
}

/// The token of a request, if it has credentials (RFC 6750, section 2.1).
fn token(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err("Authorization must be given once");
    }
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts.map(|(scheme, token)| (scheme, token.trim_matches(' '))) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) && is_token68(token) => Ok(Some(token)),
        _ => Err("Authorization must be Bearer, a space and a token"),
    }
}

/// RFC 9110, section 11.2.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_one_bearer_token() {
        let read = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (AUTHORIZATION, HeaderValue::from_static(line)));
            token(&lines.collect::<HeaderMap>()).map(|token| token.map(str::to_owned))
        };
        assert_eq!(read(&[]), Ok(None));
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(read(&[good]), Ok(Some("abc".to_owned())), "{good}");
        }
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer a,b", "abc", "Bearer =", "Bearer a=b"]
        {
            assert!(read(&[wrong]).is_err(), "{wrong}");
        }
        assert!(read(&["Bearer abc", "Bearer abc"]).is_err());
    }
}
