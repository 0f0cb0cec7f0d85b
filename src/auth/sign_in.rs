//! The pages as a client of the identity provider: OpenID Connect's authorization code flow with PKCE, without a client secret.
//!
//! The pages perform the flow; the server provides its parameters.

use serde::Serialize;
use utoipa::ToSchema;

/// The parameters with which a page signs a user in.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignIn {
    /// The identity provider's issuer URL, as in its discovery document.
    pub issuer: String,
    /// The id of the public client; the redirect URI is that of `/`.
    pub client_id: String,
    /// Scopes to request, separated by spaces.
    pub scope: String,
    /// Scheme, host and port of the identity provider, to which a page may send requests.
    #[serde(skip)]
    pub origin: String,
}
