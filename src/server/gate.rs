//! Lets a request through to the route that takes it, if its credentials allow what the route asks for.
//!
//! In front of all routes: nothing of a refused request is read but its head, and nothing is looked up of what it names.

use std::sync::Arc;

use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Request};
use warp::reply::Response;

use super::quota::PrincipalQuota;
use crate::auth::authenticator::Authenticator;
use crate::auth::issuer::rules::Refused;
use crate::auth::principal::Principal;
use crate::auth::scope::Access;
use crate::http::access::Denied;
use crate::http::client::Client;
use crate::http::endpoint::AccessTable;
use crate::http::route::{Caller, Route, Share, Unproven};

const SCHEME: &str = "bearer";

/// Who may ask what.
pub struct Gate {
    authenticator: Authenticator,
    table: AccessTable,
    /// Whether there is an identity provider.
    has_issuer: bool,
    /// How often a principal may ask.
    quota: Option<PrincipalQuota>,
}

/// Whom a request goes through for, or what it is answered with instead.
pub type Decision = Result<Caller, Box<Refusal>>;

/// A request that does not go through.
pub struct Refusal {
    /// Why.
    pub denied: Denied,
    /// Where it would have gone.
    pub target: Target,
    /// Who asked, if that is known.
    pub principal: Option<Arc<Principal>>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The route that takes it.
    pub template: &'static str,
    /// What that asks for.
    pub access: Access,
    /// From where it comes.
    client: Client,
}

/// What is to be done with a request.
pub enum Admission {
    /// Nothing but this.
    Decided(Decision),
    /// Somebody must be asked about its token first.
    Unknown(Unknown),
}

/// A request whose token must be looked up.
pub struct Unknown {
    token: String,
    target: Target,
}

impl Gate {
    /// A gate in front of the routes of a table.
    pub fn new(
        authenticator: Authenticator,
        table: AccessTable,
        has_issuer: bool,
        quota: Option<PrincipalQuota>,
    ) -> Self {
        Self { authenticator, table, has_issuer, quota }
    }

    /// What is to be done with a request, as far as that is known without waiting.
    pub fn admit<B>(&self, request: &Request<B>) -> Admission {
        let anonymous = || self.authenticator.anonymous().clone();
        let through = |template| Caller { principal: anonymous(), template, share: None };
        let Some((template, access)) = self.table.find(request.method(), request.uri().path()) else {
            // No route takes it, so there is nothing to guard.
            return Admission::Decided(Ok(through(None)));
        };
        if access == Access::Public {
            return Admission::Decided(Ok(through(Some(template))));
        }
        let target = Target { template, access, client: Client::of(request.headers()) };
        Admission::Decided(match token(request.headers()) {
            Ok(None) => self.judge(anonymous(), target),
            Ok(Some(token)) => match self.authenticator.known(token) {
                Some(found) => self.found(found, target),
                // Asking somebody costs more than a request, so whoever makes tokens up has their address's share for it.
                None => match self.quota.as_ref().map_or(Ok(()), |quota| quota.take_look_up(target.client)) {
                    Ok(()) => return Admission::Unknown(Unknown { token: token.to_owned(), target }),
                    Err(seconds) => Err(refusal(Denied::TooManyTokens(seconds), target, None)),
                },
            },
            Err(why) => Err(self.invalid(why, target)),
        })
    }

    /// What is to be done with a request whose token has to be looked up.
    pub async fn look_up(&self, unknown: Unknown) -> Decision {
        let found = self.authenticator.verify(&unknown.token).await;
        self.found(found, unknown.target)
    }

    /// The answer to a request with these headers that does not go through.
    pub fn answer(&self, headers: &HeaderMap, refusal: Refusal) -> Response {
        let Refusal { denied, target: Target { template, access, .. }, principal } = refusal;
        let mut response = denied.problem(access, headers, self.has_issuer).into_response();
        response.extensions_mut().insert(Route(template));
        match principal {
            Some(principal) => {
                response.extensions_mut().insert(Caller { principal, template: Some(template), share: None });
            }
            None => drop(response.extensions_mut().insert(Unproven)),
        }
        response
    }

    /// At the end, when nobody asks any more.
    pub async fn finish(&self) {
        self.authenticator.finish().await;
    }

    fn found(&self, found: Result<Arc<Principal>, Refused>, target: Target) -> Decision {
        match found {
            Ok(principal) => self.judge(principal, target),
            Err(Refused::Invalid(why)) => Err(self.invalid(why, target)),
            Err(Refused::Unavailable) => Err(refusal(Denied::Unavailable, target, None)),
        }
    }

    /// A token that proves nothing is a request of its address.
    fn invalid(&self, why: &'static str, target: Target) -> Box<Refusal> {
        let taken = self.take(self.authenticator.anonymous(), target);
        taken.err().unwrap_or_else(|| refusal(Denied::Invalid(why), target, None))
    }

    fn judge(&self, principal: Arc<Principal>, target: Target) -> Decision {
        let share = self.take(&principal, target)?;
        if !principal.scopes.permit(target.access) {
            let denied = if principal.name.is_none() { Denied::NoCredentials } else { Denied::Insufficient };
            return Err(refusal(denied, target, Some(principal)));
        }
        count(Some(&principal), "permitted");
        Ok(Caller { principal, template: Some(target.template), share })
    }

    /// Takes a request out of a principal's share, where that is counted.
    fn take(&self, principal: &Arc<Principal>, target: Target) -> Result<Option<Share>, Box<Refusal>> {
        let Some(quota) = &self.quota else { return Ok(None) };
        quota
            .take(principal, target.client)
            .map(Some)
            .map_err(|(share, seconds)| refusal(Denied::TooMany(share, seconds), target, Some(principal.clone())))
    }
}

fn refusal(denied: Denied, target: Target, principal: Option<Arc<Principal>>) -> Box<Refusal> {
    count(principal.as_deref(), denied.label());
    Box::new(Refusal { denied, target, principal })
}

fn count(principal: Option<&Principal>, result: &'static str) {
    let credential = principal.map_or("invalid", |principal| principal.kind.label());
    metrics::counter!("auth_requests_total", "credential" => credential, "result" => result).increment(1);
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
        _ => Err("Authorization must be the word Bearer, a blank and a token"),
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
