//! Settings of the identity provider whose access tokens are accepted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::WrongSetting;
use super::sign_in::SignInConfig;
use crate::auth::issuer::Options;
use crate::auth::issuer::fetch::{Address, Client};
use crate::auth::issuer::keys::Pace;
use crate::auth::issuer::rules::{Rules, TokenType};
use crate::auth::issuer::scope_claim::{ScopeClaim, ScopeMap, ScopeRules};
use crate::auth::issuer::source::Source;
use crate::auth::sign_in::SignIn;
use crate::duration::span;

/// Maximum leeway: a larger clock difference is a fault.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Shortest time between two fetches of the keys from a URL, however many tokens have unknown keys.
const PAUSE: Duration = Duration::from_secs(10);
/// Shortest time between two reads of the keys from a file, which are cheap.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// Longest time until a changed file is read.
const FILE_REFRESH: Duration = Duration::from_secs(5);

/// The identity provider.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity provider")]
pub struct IssuerConfig {
    /// Identity provider whose access tokens (RFC 9068) are accepted, exactly as in their `iss`.
    ///
    /// Its keys are found by OpenID Connect discovery, unless AUTH_JWKS_URL or AUTH_JWKS_FILE is set.
    #[arg(long, env, hide_env_values = true, value_parser = issuer)]
    pub auth_issuer: Option<String>,

    /// Required value in the `aud` of these tokens: this service's name at the identity provider. Mandatory with AUTH_ISSUER.
    #[arg(long, env, hide_env_values = true)]
    pub auth_audience: Option<String>,

    /// URL of the identity provider's key set; https, or http on this machine.
    #[arg(long, env, hide_env_values = true)]
    pub auth_jwks_url: Option<Address>,

    /// File with the identity provider's key set, reloaded when it changes.
    #[arg(long, env, hide_env_values = true)]
    pub auth_jwks_file: Option<PathBuf>,

    /// How often the keys are reloaded (1s to 24h): a number with s, m or h.
    ///
    /// A key that the identity provider has removed is accepted for this long; a new key is fetched when the first token refers
    /// to it.
    #[arg(long, env, default_value = "10m", value_parser = span::<24>, hide_env_values = true)]
    pub auth_jwks_refresh: Duration,

    /// File with the CA certificates (PEM) for the identity provider's certificate, instead of the system's.
    #[arg(long, env, hide_env_values = true)]
    pub auth_ca_file: Option<PathBuf>,

    /// Largest accepted difference between the identity provider's clock and this one (0s to 5m).
    ///
    /// A smaller value rejects tokens of a provider whose clock is ahead; a larger one accepts expired tokens for this long.
    #[arg(long, env, default_value = "30s", value_parser = leeway, hide_env_values = true)]
    pub auth_leeway: Duration,

    /// `typ` of the tokens: `at+jwt` (RFC 9068), or `jwt` for a provider whose access tokens have the type JWT or none.
    ///
    /// With `jwt`, only the claims distinguish access tokens from ID tokens: AUTH_AUDIENCE must not be a client's id.
    #[arg(long, env, default_value = "at+jwt", hide_env_values = true)]
    pub auth_token_type: TokenType,

    /// Claim with the scopes, such as `roles`, or a path to it, such as `realm_access.roles`; `scope` or `scp` by default.
    #[arg(long, env, hide_env_values = true)]
    pub auth_scope_claim: Option<ScopeClaim>,

    /// Scopes of the values of that claim: `reader=*:read,clerk=passengers:* steps:read`. Other values are then ignored.
    ///
    /// Without it, the values themselves are scopes.
    #[arg(long, env, hide_env_values = true)]
    pub auth_scope_map: Option<ScopeMap>,

    /// The pages' sign-in.
    #[command(flatten)]
    pub sign_in: SignInConfig,
}

impl IssuerConfig {
    /// All options of the identity provider; `None` if there is none.
    ///
    /// # Errors
    /// If settings are inconsistent, or AUTH_CA_FILE cannot be read.
    pub fn options(&self) -> Result<Option<Options>, WrongSetting> {
        let Some(issuer) = self.auth_issuer.clone() else {
            let first = self.given().next();
            return first.map_or(Ok(None), |(name, value)| {
                Err(WrongSetting::new(name, &value, "AUTH_ISSUER must also be set", ""))
            });
        };
        let Some(audience) = self.auth_audience.clone() else {
            return Err(missing_audience());
        };
        let (source, pace) = self.source(&issuer)?;
        Ok(Some(Options {
            rules: Rules { issuer, audience, leeway: self.auth_leeway, token_type: self.auth_token_type },
            scopes: ScopeRules { claim: self.auth_scope_claim.clone(), map: self.auth_scope_map.clone() },
            source,
            pace,
        }))
    }

    /// How the pages sign in, if they do; `scopes` are those of all routes.
    ///
    /// # Errors
    /// If settings are inconsistent.
    pub fn sign_in(&self, scopes: &[String]) -> Result<Option<SignIn>, WrongSetting> {
        let Some(issuer) = &self.auth_issuer else { return Ok(None) };
        // If scopes are mapped from roles, the provider may not know them.
        self.sign_in.at(issuer, if self.auth_scope_claim.is_some() { &[] } else { scopes })
    }

    /// The given settings that have no effect without an issuer.
    fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_deref().map(|path| path.display().to_string());
        [
            ("AUTH_AUDIENCE", self.auth_audience.clone()),
            ("AUTH_JWKS_URL", self.auth_jwks_url.as_ref().map(ToString::to_string)),
            ("AUTH_JWKS_FILE", path(&self.auth_jwks_file)),
            ("AUTH_CA_FILE", path(&self.auth_ca_file)),
            ("AUTH_SCOPE_CLAIM", self.auth_scope_claim.as_ref().map(ToString::to_string)),
            ("AUTH_SCOPE_MAP", self.auth_scope_map.as_ref().map(ToString::to_string)),
        ]
        .into_iter()
        .chain(self.sign_in.given())
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// The source of the keys, and how often they are reloaded.
    fn source(&self, issuer: &str) -> Result<(Source, Pace), WrongSetting> {
        let refresh = self.auth_jwks_refresh;
        let pace = Pace { refresh, pause: PAUSE.min(refresh) };
        let client = client(self.auth_ca_file.as_deref())?;
        match (&self.auth_jwks_url, &self.auth_jwks_file) {
            (Some(address), Some(_)) => {
                Err(WrongSetting::of("AUTH_JWKS_URL", address, "AUTH_JWKS_FILE is also set; expected only one of them"))
            }
            (Some(address), None) => Ok((Source::Url { address: address.clone(), client }, pace)),
            (None, Some(path)) => {
                Ok((Source::File(path.clone()), Pace { refresh: FILE_REFRESH.min(refresh), pause: FILE_PAUSE }))
            }
            (None, None) => Source::discovery(issuer, client).map(|source| (source, pace)).map_err(|reason| {
                let reason = format!("{reason}, or AUTH_JWKS_URL or AUTH_JWKS_FILE in addition");
                WrongSetting::of("AUTH_ISSUER", issuer, &reason)
            }),
        }
    }
}

fn missing_audience() -> WrongSetting {
    let reason = "must be set with AUTH_ISSUER: otherwise tokens issued for another service would be accepted";
    WrongSetting::of("AUTH_AUDIENCE", "", reason)
}

fn client(file: Option<&Path>) -> Result<Client, WrongSetting> {
    Client::new(file).map_err(|error| {
        let value = file.map(|path| path.display().to_string()).unwrap_or_default();
        WrongSetting::of("AUTH_CA_FILE", &value, &format!("cannot use {error}"))
    })
}

/// Any name without spaces, because a space follows it in the names of principals.
fn issuer(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err("expected the identity provider's name as in iss, without spaces");
    }
    Ok(text.to_owned())
}

fn leeway(text: &str) -> Result<Duration, &'static str> {
    let leeway = if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { span::<1>(text) };
    leeway.ok().filter(|leeway| *leeway <= LEEWAY_MAX).ok_or("expected a time between 0s and 5m, for example 30s or 1m")
}
