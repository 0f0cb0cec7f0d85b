//! Who may do what, and Redis: what the server asks of others besides PostgreSQL.

use std::time::Duration;

use super::report::Report;
use crate::auth::issuer::source::Source;
use crate::config::{Auth, CacheConfig, ServerConfig};
use crate::db::error_chain::error_chain;

const AREA: &str = "auth";
const AREA_REDIS: &str = "redis";
/// What a key set has to hold (RFC 7517).
const KEY_SET: &str =
    "a JSON object whose list `keys` has a public key for signatures: RSA of 2048 bits and more, EC P-256 or Ed25519";

/// Looks at AUTH, and at the identity provider if there is one.
pub async fn look(report: &mut Report, server: &ServerConfig) {
    if server.common.auth == Auth::Off {
        let what = "AUTH=off: whoever reaches the service may read, change and delete everything";
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

/// Looks at the keys of the identity provider.
async fn keys(report: &mut Report, source: &Source) {
    match source.read().await {
        Err(error) => {
            let what = format!("the identity provider's keys cannot be read: {}", error_chain(&error));
            report.wrong(AREA, what, where_they_are(source));
        }
        Ok(keys) if keys.is_empty() => {
            let left_out = keys.left_out;
            let what = format!("the identity provider names no key that can be used, and {left_out} that cannot");
            report.wrong(AREA, what, where_they_are(source));
        }
        Ok(keys) => {
            let left_out =
                if keys.left_out > 0 { format!(", and {} that cannot be used", keys.left_out) } else { String::new() };
            report.fine(AREA, format!("the identity provider names {} keys{left_out}", keys.len()));
        }
    }
}

/// What has to be there, and what says where that is.
fn where_they_are(source: &Source) -> String {
    match source {
        Source::File(path) => {
            let path = path.display();
            format!(
                "{path} (AUTH_JWKS_FILE) must hold {KEY_SET}; the identity provider's jwks_uri has it: curl -fo {path} JWKS_URI"
            )
        }
        Source::Url { address, .. } => {
            format!("{address} (AUTH_JWKS_URL) must answer with {KEY_SET}; see AUTH_CA_FILE: curl -v {address}")
        }
        Source::Discovery { address, .. } => format!(
            "{address} (AUTH_ISSUER) must name a jwks_uri, and that answer with {KEY_SET}; see AUTH_CA_FILE: curl -v {address};              AUTH_JWKS_URL or AUTH_JWKS_FILE name the keys otherwise"
        ),
    }
}

/// Asks Redis for a sign of life, where the settings name one.
pub async fn redis(report: &mut Report, config: &CacheConfig) {
    let client = match config.options() {
        Ok(options) => options.redis,
        Err(wrong) => return report.setting(wrong.to_string(), "correct REDIS_URL or REDIS_PASSWORD_FILE"),
    };
    let Some(client) = client else { return };
    let asking = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    let mend = "see Redis; answers come from PostgreSQL meanwhile: docs/caching.md";
    match tokio::time::timeout(Duration::from_secs(3), asking).await {
        Ok(Ok(_)) => report.fine(AREA_REDIS, "it answers"),
        // The category says what is wrong and never repeats the address, which may have a password in it.
        Ok(Err(error)) => report.warning(AREA_REDIS, format!("it cannot be used: {}", error.category()), mend),
        Err(_) => report.warning(AREA_REDIS, "it does not answer within 3 s", mend),
    }
}
