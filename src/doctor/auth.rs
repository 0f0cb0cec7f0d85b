//! Authentication and Redis: the server's dependencies other than PostgreSQL.

use std::time::Duration;

use super::report::Report;
use crate::auth::issuer::source::Source;
use crate::config::{Auth, CacheConfig, ServerConfig};
use crate::db::error_chain::error_chain;
use crate::masked::masked;

const AREA: &str = "auth";
const AREA_REDIS: &str = "redis";
/// Required content of a key set (RFC 7517).
const KEY_SET: &str =
    "a JSON object whose list `keys` has a public signature key: RSA with at least 2048 bits, EC P-256 or Ed25519";

/// Checks AUTH, and the identity provider if there is one.
pub async fn check(report: &mut Report, server: &ServerConfig) {
    if server.common.auth == Auth::Off {
        let what = "AUTH=off: every client that can reach the service can read, change and delete everything";
        report.warning(AREA, what, "AUTH=on, after pycrudapi token create; docs/security.md");
    } else {
        report.fine(AREA, "AUTH=on");
    }
    match server.auth.issuer.options() {
        Err(wrong) => report.setting(wrong.to_string(), super::CORRECT),
        Ok(None) => {}
        Ok(Some(options)) => keys(report, &options.source).await,
    }
}

/// Checks the keys of the identity provider.
async fn keys(report: &mut Report, source: &Source) {
    match source.read().await {
        Err(error) => {
            let what = format!("the identity provider's keys cannot be read: {}", error_chain(&error));
            report.wrong(AREA, what, key_source(source));
        }
        Ok(keys) if keys.is_empty() => {
            let unusable = keys.left_out;
            let what = format!("the identity provider has no usable key; unusable keys: {unusable}");
            report.wrong(AREA, what, key_source(source));
        }
        Ok(keys) => {
            let (usable, unusable) = (keys.len(), keys.left_out);
            report.fine(AREA, format!("usable keys of the identity provider: {usable}, unusable: {unusable}"));
        }
    }
}

/// What the source must contain, and how to check it.
fn key_source(source: &Source) -> String {
    match source {
        Source::File(path) => {
            let path = path.display();
            format!(
                "{path} (AUTH_JWKS_FILE) must contain {KEY_SET}; the identity provider publishes it at its jwks_uri: curl \
                 -fo {path} JWKS_URI"
            )
        }
        Source::Url { address, .. } => {
            // Its query may contain a key.
            let address = masked(&address.to_string());
            format!("{address} (AUTH_JWKS_URL) must return {KEY_SET}; check AUTH_CA_FILE: curl -v {address}")
        }
        Source::Discovery { address, .. } => format!(
            "{address} (AUTH_ISSUER) must contain a jwks_uri that returns {KEY_SET}; check AUTH_CA_FILE: curl -v {address}; \
             alternatively set AUTH_JWKS_URL or AUTH_JWKS_FILE"
        ),
    }
}

/// Sends a PING to Redis, if the settings contain one.
pub async fn redis(report: &mut Report, config: &CacheConfig) {
    let client = match config.options() {
        Ok(options) => options.redis,
        Err(wrong) => return report.setting(wrong.to_string(), "correct REDIS_URL or REDIS_PASSWORD_FILE"),
    };
    let Some(client) = client else { return };
    let ping = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    let remedy = "check Redis; answers come from PostgreSQL meanwhile: docs/caching.md";
    match tokio::time::timeout(Duration::from_secs(3), ping).await {
        Ok(Ok(_)) => report.fine(AREA_REDIS, "Redis responds"),
        // The category describes the error and never contains the address, which may include a password.
        Ok(Err(error)) => report.warning(AREA_REDIS, format!("Redis cannot be used: {}", error.category()), remedy),
        Err(_) => report.warning(AREA_REDIS, "Redis does not respond within 3 s", remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::issuer::fetch::Client;

    #[test]
    fn the_query_of_a_key_url_is_not_repeated() {
        let client = Client::new(None).expect("the system's authorities, or none");
        let address = "https://id.example/keys?key=S3KR3T".parse().expect("a URL");
        let remedy = key_source(&Source::Url { address, client });
        assert!(remedy.contains("https://id.example/keys") && !remedy.contains("S3KR3T"), "{remedy}");
    }
}
