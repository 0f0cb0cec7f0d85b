//! Settings of authentication.

use clap::{Args, value_parser};

use super::fault::WrongSetting;
use super::issuer::IssuerConfig;
use crate::auth::scope::{Access, Scopes};
use crate::resource::registry::Resources;

/// Whether credentials are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Auth {
    /// Everybody may do everything.
    Off,
    /// Everybody may do what their scopes say.
    On,
}

impl Auth {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthConfig {
    /// Scopes of requests without credentials, with AUTH=on, separated by commas: `*:read`, `steps:create`.
    ///
    /// Nobody without credentials may do anything by default. Probes, the documentation and the pages need none.
    #[arg(long, env, hide_env_values = true)]
    pub auth_anonymous_scopes: Option<Scopes>,

    /// Most requests of a principal in a second, with AUTH=on (0 to 1000000; 0 is no limit); more are answered with 429.
    ///
    /// Requests without credentials are told apart by the client's address. Each server counts for itself.
    #[arg(long, env, default_value_t = 0, value_parser = value_parser!(u32).range(..=1_000_000), hide_env_values = true)]
    pub principal_rate_limit: u32,

    /// The identity provider.
    #[command(flatten)]
    pub issuer: IssuerConfig,
}

impl AuthConfig {
    /// Whether the settings go together, and with the resources that are served.
    ///
    /// # Errors
    /// The first one that does not.
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

    /// Whether any of them says something that only AUTH=on heeds.
    pub fn is_given(&self) -> bool {
        self.auth_anonymous_scopes.is_some() || self.principal_rate_limit > 0 || self.issuer.auth_issuer.is_some()
    }

    /// What requests without credentials may do.
    ///
    /// # Errors
    /// When a resource is named that is not served.
    pub fn anonymous_scopes(&self, resources: Resources) -> Result<Scopes, WrongSetting> {
        let scopes = self.auth_anonymous_scopes.clone().unwrap_or_default();
        if scopes.permit(Access::Admin) {
            let reason = "nobody is an administrator without credentials; name what is to be open, such as *:read";
            return Err(WrongSetting::of("AUTH_ANONYMOUS_SCOPES", &scopes, reason));
        }
        match unknown_resource(&scopes, resources) {
            Some(reason) => Err(WrongSetting::of("AUTH_ANONYMOUS_SCOPES", &scopes, &reason)),
            None => Ok(scopes),
        }
    }
}

/// What a scope may name.
pub fn known_resources(resources: Resources) -> Vec<&'static str> {
    resources.iter().map(|resource| resource.name).chain(["steps", "air-quality"]).collect()
}

/// What is wrong with the resources that scopes name.
pub fn unknown_resource(scopes: &Scopes, resources: Resources) -> Option<String> {
    let known = known_resources(resources);
    let unknown = scopes.resources().find(|name| !known.contains(name))?;
    Some(format!("there is no resource {unknown}; there are {}", known.join(", ")))
}
