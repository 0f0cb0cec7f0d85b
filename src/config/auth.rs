//! Settings of authentication.

use clap::{Args, value_parser};

use super::fault::WrongSetting;
use super::issuer::IssuerConfig;
use crate::auth::scope::{Access, Scopes};
use crate::resource::registry::Resources;

/// Whether credentials are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// Every request is permitted.
    Off,
    /// A request is permitted by its scopes.
    On,
}

impl Auth {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// Authentication and authorization.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthConfig {
    /// Scopes of requests without credentials, with AUTH=on, separated by commas: `*:read`, `steps:create`.
    ///
    /// None by default. Probes, the documentation and the pages require no credentials.
    #[arg(long, env, hide_env_values = true)]
    pub auth_anonymous_scopes: Option<Scopes>,

    /// Maximum requests per second of a principal, with AUTH=on (0 to 1000000; 0 is no limit); further ones get 429.
    ///
    /// Requests without credentials are limited by client address. Each server counts separately.
    #[arg(long, env, default_value_t = 0, value_parser = value_parser!(u32).range(..=1_000_000), hide_env_values = true)]
    pub principal_rate_limit: u32,

    /// The identity provider.
    #[command(flatten)]
    pub issuer: IssuerConfig,
}

impl AuthConfig {
    /// Checks that the settings are consistent, and refer only to resources that are served.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self, resources: Resources) -> Result<(), WrongSetting> {
        self.anonymous_scopes(resources)?;
        if let Some(map) = &self.issuer.auth_scope_map
            && let Some(reason) = map.scopes().find_map(|scopes| unknown_resource(scopes, resources))
        {
            return Err(WrongSetting::of("AUTH_SCOPE_MAP", map, &reason));
        }
        self.issuer.options()?;
        self.issuer.sign_in(&[]).map(drop)
    }

    /// Whether any of them is set that has an effect only with AUTH=on.
    pub fn is_given(&self) -> bool {
        self.auth_anonymous_scopes.is_some() || self.principal_rate_limit > 0 || self.issuer.auth_issuer.is_some()
    }

    /// The scopes of requests without credentials.
    ///
    /// # Errors
    /// If they refer to a resource that is not served, or to administration.
    pub fn anonymous_scopes(&self, resources: Resources) -> Result<Scopes, WrongSetting> {
        let scopes = self.auth_anonymous_scopes.clone().unwrap_or_default();
        if scopes.permit(Access::Admin) {
            let reason = "the admin scope requires credentials; specify other scopes, such as *:read";
            return Err(WrongSetting::of("AUTH_ANONYMOUS_SCOPES", &scopes, reason));
        }
        match unknown_resource(&scopes, resources) {
            Some(reason) => Err(WrongSetting::of("AUTH_ANONYMOUS_SCOPES", &scopes, &reason)),
            None => Ok(scopes),
        }
    }
}

/// The resource names that scopes can refer to.
pub fn known_resources(resources: Resources) -> Vec<&'static str> {
    resources.iter().map(|resource| resource.name).chain(["steps", "air-quality"]).collect()
}

/// An error message if scopes refer to an unknown resource.
pub fn unknown_resource(scopes: &Scopes, resources: Resources) -> Option<String> {
    let known = known_resources(resources);
    let unknown = scopes.resources().find(|name| !known.contains(name))?;
    Some(format!("unknown resource {unknown}; expected one of {}", known.join(", ")))
}
