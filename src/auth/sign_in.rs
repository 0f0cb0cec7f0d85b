//! The pages as a client of the identity provider: OpenID Connect's authorization code flow with PKCE, without a secret.
//!
//! The pages carry it out; the server tells them whom to ask as whom for what.

use serde::Serialize;
use utoipa::ToSchema;

/// Where and how a page signs somebody in.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignIn {
    /// The identity provider, as its discovery document names it.
    pub issuer: String,
    /// Its public client; the redirect address is that of `/`.
    pub client_id: String,
    /// Scopes to ask for, with blanks between them.
    pub scope: String,
    /// Scheme, host and port of the identity provider, which a page may ask.
    #[serde(skip)]
    pub origin: String,
}
