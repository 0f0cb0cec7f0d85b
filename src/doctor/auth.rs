//! Who may do what, and Redis: what the server asks of others besides PostgreSQL.

use std::time::Duration;

use jiff::{Span, Timestamp};
use tokio_postgres::Client;

use super::report::Report;
use crate::auth::tokens::{State, store};
use crate::config::{Auth, CacheConfig, ServerConfig};
use crate::db::error::StoreError;
use crate::db::told::told;

const AREA: &str = "auth";
const AREA_REDIS: &str = "redis";
/// Whoever uses a token that ends sooner has no time to get another.
const TOKEN_WARNING_DAYS: i64 = 7;

/// Looks at AUTH, and at the identity provider if there is one.
pub async fn look(report: &mut Report, server: &ServerConfig) {
    if server.common.auth == Auth::Off {
        let what = "AUTH=off: whoever reaches the service may read, change and delete everything";
        report.warning(AREA, what, "AUTH=on, after pycrudapi token create; docs/security.md");
    } else {
        report.fine(AREA, "AUTH=on");
    }
    match server.auth.issuer.options() {
        Err(wrong) => report.wrong(AREA, wrong.to_string(), "correct this setting"),
        Ok(None) => {}
        Ok(Some(options)) => match options.source.read().await {
            Err(error) => {
                let mend =
                    "see whether the identity provider answers from here, and AUTH_ISSUER, AUTH_JWKS_URL, AUTH_CA_FILE";
                report.wrong(AREA, format!("the identity provider's keys cannot be read: {}", told(&error)), mend);
            }
            Ok(keys) if keys.is_empty() => {
                report.wrong(
                    AREA,
                    "the identity provider names no key that can be used",
                    "see its key set (RS256, PS256, ES256, EdDSA)",
                );
            }
            Ok(keys) => report.fine(AREA, format!("the identity provider names {} keys", keys.len())),
        },
    }
}

/// Looks at the tokens of the service's own.
///
/// # Errors
/// When the connection is lost.
pub async fn tokens(report: &mut Report, server: &ServerConfig, client: &Client) -> Result<(), StoreError> {
    let soon = Timestamp::now() + Span::new().hours(24 * TOKEN_WARNING_DAYS);
    let listed = store::list(client).await?;
    let usable = || listed.iter().filter(|token| token.state() == State::Active);
    for token in usable().filter(|token| token.expires_at.is_some_and(|end| end < soon)) {
        let what = format!("the token {} expires within {TOKEN_WARNING_DAYS} days", token.name);
        report.warning(AREA, what, format!("pycrudapi token rotate {} --overlap 24h", token.id));
    }
    if server.common.auth == Auth::On && usable().next().is_none() && server.auth.issuer.auth_issuer.is_none() {
        let mend = "pycrudapi token create --name admin --scope admin";
        report.warning(AREA, "AUTH=on, and there is neither a token that can be used nor an AUTH_ISSUER", mend);
    }
    Ok(())
}

/// Asks Redis for a sign of life, where the settings name one.
pub async fn redis(report: &mut Report, config: &CacheConfig) {
    let client = match config.options() {
        Ok(options) => options.redis,
        Err(wrong) => return report.wrong(AREA_REDIS, wrong.to_string(), "correct REDIS_URL or REDIS_PASSWORD_FILE"),
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
