//! Settings of the pages' sign-in at the identity provider.

use clap::Args;

use super::WrongSetting;
use crate::auth::issuer::fetch::Address;
use crate::auth::sign_in::SignIn;

/// The scope of OpenID Connect itself.
const OPENID: &str = "openid";

/// What the pages are at the identity provider.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity provider")]
pub struct SignInConfig {
    /// Client of the identity provider that the pages sign in as: a public one, with the address of `/` as its redirect address.
    ///
    /// Without it the pages ask for a token.
    #[arg(long, env, hide_env_values = true, value_parser = client_id)]
    pub auth_client_id: Option<String>,

    /// Scopes that the pages ask the identity provider for, separated by blanks; `openid` is one of them in any case.
    ///
    /// Without it those of all routes but `admin`, and none where AUTH_SCOPE_CLAIM says that scopes are not what a token has.
    #[arg(long, env, hide_env_values = true, value_parser = scope)]
    pub auth_client_scope: Option<String>,
}

impl SignInConfig {
    /// The settings that mean nothing without an issuer.
    pub(super) fn given(&self) -> [(&'static str, Option<String>); 2] {
        [("AUTH_CLIENT_ID", self.auth_client_id.clone()), ("AUTH_CLIENT_SCOPE", self.auth_client_scope.clone())]
    }

    /// How the pages sign in at an issuer; `scopes` are asked for where nothing else is said.
    pub(super) fn at(&self, issuer: &str, scopes: &[String]) -> Result<Option<SignIn>, WrongSetting> {
        let Some(client_id) = self.auth_client_id.clone() else {
            return self.auth_client_scope.as_ref().map_or(Ok(None), |scope| {
                Err(WrongSetting::of("AUTH_CLIENT_SCOPE", scope, "AUTH_CLIENT_ID must be set, too"))
            });
        };
        let address: Result<Address, _> = issuer.parse();
        let origin = address.and_then(|address| address.origin().ok_or("expected a host name or an IPv4 address"));
        let origin = origin.map_err(|reason| {
            let reason = format!("AUTH_ISSUER must be an address that pages can ask: {reason}");
            WrongSetting::of("AUTH_CLIENT_ID", &client_id, &reason)
        })?;
        let asked = self.auth_client_scope.clone().unwrap_or_else(|| scopes.join(" "));
        let others = asked.split(' ').filter(|word| !word.is_empty() && *word != OPENID);
        let scope = std::iter::once(OPENID).chain(others).collect::<Vec<_>>().join(" ");
        Ok(Some(SignIn { issuer: issuer.to_owned(), client_id, scope, origin }))
    }
}

/// RFC 6749, appendix A.1.
fn client_id(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("expected the id of a client: printable ASCII");
    }
    Ok(text.to_owned())
}

/// RFC 6749, appendix A.4.
fn scope(text: &str) -> Result<String, &'static str> {
    let is_token = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    if !text.split(' ').all(is_token) {
        return Err("expected scopes with one blank between them, without quotes and backslashes");
    }
    Ok(text.to_owned())
}
