//! Lets a request through to the route that takes it, if its credentials allow what the route asks for.
//!
//! In front of all routes: nothing of a refused request is read but its head, and nothing is looked up of what it names.

use std::sync::Arc;

use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Request};

use super::quota::PrincipalQuota;
use crate::auth::authenticator::Authenticator;
use crate::auth::issuer::rules::Refused;
use crate::auth::principal::Principal;
use crate::auth::scope::Access;
use crate::http::access::Denied;
use crate::http::client::Client;
use crate::http::endpoint::AccessTable;
use crate::http::problem::Problem;
use crate::http::route::{Caller, Route, Share};

const SCHEME: &str = "bearer";

/// Who may ask what.
pub struct Gate {
    authenticator: Authenticator,
    table: AccessTable,
    /// The URL of the document that names the identity provider.
    metadata: Option<String>,
    /// How often a principal may ask.
    quota: Option<PrincipalQuota>,
}

/// Whom a request goes through for, or what it is answered with instead.
pub type Decision = Result<Caller, Box<Refusal>>;

/// The answer to a request that does not go through.
pub struct Refusal {
    /// What is wrong.
    pub problem: Problem,
    /// Who asked for what the route would have done.
    pub caller: Option<Caller>,
    /// The route that would have taken it.
    pub route: Route,
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
    client: Client,
    template: &'static str,
    access: Access,
}

impl Gate {
    /// A gate in front of the routes of a table.
    pub fn new(
        authenticator: Authenticator,
        table: AccessTable,
        metadata: Option<String>,
        quota: Option<PrincipalQuota>,
    ) -> Self {
        Self { authenticator, table, metadata, quota }
    }

    /// What is to be done with a request, as far as that is known without waiting.
    pub fn admit<B>(&self, request: &Request<B>) -> Admission {
        let anonymous = || self.authenticator.anonymous().clone();
        let Some((template, access)) = self.table.find(request.method(), request.uri().path()) else {
            // No route takes it, so there is nothing to guard.
            return Admission::Decided(Ok(Caller { principal: anonymous(), template: None, share: None }));
        };
        if access == Access::Public {
            return Admission::Decided(Ok(Caller { principal: anonymous(), template: Some(template), share: None }));
        }
        let client = Client::of(request.headers());
        Admission::Decided(match token(request.headers()) {
            Ok(None) => self.judge(anonymous(), client, template, access),
            Ok(Some(token)) => match self.authenticator.known(token) {
                Some(found) => self.found(found, client, template, access),
                // Asking somebody costs more than a request, so whoever makes tokens up has their address's share for it.
                None => match self.take(&anonymous(), client, template) {
                    Ok(_) => return Admission::Unknown(Unknown { token: token.to_owned(), client, template, access }),
                    Err(refusal) => Err(refusal),
                },
            },
            Err(why) => Err(self.refusal(&Denied::Invalid(why), template, access)),
        })
    }

    /// What is to be done with a request whose token has to be looked up.
    pub async fn look_up(&self, unknown: Unknown) -> Decision {
        let found = self.authenticator.verify(&unknown.token).await;
        self.found(found, unknown.client, unknown.template, unknown.access)
    }

    /// At the end, when nobody asks any more.
    pub async fn finish(&self) {
        self.authenticator.finish().await;
    }

    fn found(
        &self,
        found: Result<Arc<Principal>, Refused>,
        client: Client,
        template: &'static str,
        access: Access,
    ) -> Decision {
        match found {
            Ok(principal) => self.judge(principal, client, template, access),
            Err(Refused::Invalid(why)) => Err(self.refusal(&Denied::Invalid(why), template, access)),
            Err(Refused::Unavailable) => Err(self.refusal(&Denied::Unavailable, template, access)),
        }
    }

    fn judge(&self, principal: Arc<Principal>, client: Client, template: &'static str, access: Access) -> Decision {
        let is_anonymous = principal.name.is_none();
        if principal.scopes.permit(access) {
            metrics::counter!("auth_requests_total", "credential" => principal.kind.label(), "result" => "permitted")
                .increment(1);
            let share = self.take(&principal, client, template)?;
            return Ok(Caller { principal, template: Some(template), share });
        }
        let denied = if is_anonymous { Denied::NoCredentials } else { Denied::Insufficient };
        let caller = Some(Caller { principal, template: Some(template), share: None });
        Err(Box::new(Refusal { caller, ..*self.refusal(&denied, template, access) }))
    }

    /// Takes a request out of a principal's share, where that is counted.
    fn take(
        &self,
        principal: &Arc<Principal>,
        client: Client,
        template: &'static str,
    ) -> Result<Option<Share>, Box<Refusal>> {
        let Some(quota) = &self.quota else { return Ok(None) };
        quota.take(principal, client).map(Some).map_err(|problem| {
            metrics::counter!("auth_requests_total", "credential" => principal.kind.label(), "result" => "too_many")
                .increment(1);
            let caller = Some(Caller { principal: principal.clone(), template: Some(template), share: None });
            Box::new(Refusal { problem: *problem, caller, route: Route(template) })
        })
    }

    fn refusal(&self, denied: &Denied, template: &'static str, access: Access) -> Box<Refusal> {
        metrics::counter!("auth_requests_total", "credential" => "none", "result" => denied.label()).increment(1);
        Box::new(Refusal {
            problem: denied.problem(access, self.metadata.as_deref()),
            caller: None,
            route: Route(template),
        })
    }
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
