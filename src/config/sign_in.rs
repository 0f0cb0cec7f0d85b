//! Settings of the pages' sign-in at the identity provider.

use clap::Args;

use super::WrongSetting;
use crate::auth::issuer::fetch::Address;
use crate::auth::sign_in::SignIn;

/// The scope of OpenID Connect itself.
const OPENID: &str = "openid";

/// The pages as a client of the identity provider.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity provider")]
pub struct SignInConfig {
    /// Client id of the pages at the identity provider: a public client with the URL of `/` as its redirect URI.
    ///
    /// Without it, users must enter a token.
    #[arg(long, env, hide_env_values = true, value_parser = client_id)]
    pub auth_client_id: Option<String>,

    /// Scopes that the pages request from the identity provider, separated by spaces; `openid` is always included.
    ///
    /// By default those of all routes except `admin`, or none if AUTH_SCOPE_CLAIM is set.
    #[arg(long, env, hide_env_values = true, value_parser = scope)]
    pub auth_client_scope: Option<String>,
}

impl SignInConfig {
    /// The settings that have no effect without an issuer.
    pub(super) fn given(&self) -> [(&'static str, Option<String>); 2] {
        [("AUTH_CLIENT_ID", self.auth_client_id.clone()), ("AUTH_CLIENT_SCOPE", self.auth_client_scope.clone())]
    }

    /// How the pages sign in at an issuer; `scopes` are the default.
    pub(super) fn at(&self, issuer: &str, scopes: &[String]) -> Result<Option<SignIn>, WrongSetting> {
        let Some(client_id) = self.auth_client_id.clone() else {
            return self.auth_client_scope.as_ref().map_or(Ok(None), |scope| {
                Err(WrongSetting::of("AUTH_CLIENT_SCOPE", scope, "AUTH_CLIENT_ID must also be set"))
            });
        };
        let address: Result<Address, _> = issuer.parse();
        let origin = address.and_then(|address| address.origin().ok_or("expected a host name or an IPv4 address"));
        let origin = origin.map_err(|reason| {
            let reason = format!("AUTH_ISSUER must be a URL that the pages can access: {reason}");
            WrongSetting::of("AUTH_CLIENT_ID", &client_id, &reason)
        })?;
        let requested = self.auth_client_scope.clone().unwrap_or_else(|| scopes.join(" "));
        let others = requested.split(' ').filter(|word| !word.is_empty() && *word != OPENID);
        let scope = std::iter::once(OPENID).chain(others).collect::<Vec<_>>().join(" ");
        Ok(Some(SignIn { issuer: issuer.to_owned(), client_id, scope, origin }))
    }
}

/// RFC 6749, appendix A.1.
fn client_id(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("expected a client id: printable ASCII");
    }
    Ok(text.to_owned())
}

/// RFC 6749, appendix A.4.
fn scope(text: &str) -> Result<String, &'static str> {
    let is_token = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    };
    if !text.split(' ').all(is_token) {
        return Err("expected scopes separated by single spaces, without quotes and backslashes");
    }
    Ok(text.to_owned())
}
