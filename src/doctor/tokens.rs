//! The service's own tokens: those that expire soon, and those that were in use when they expired or were revoked.

use jiff::{Span, Timestamp};
use tokio_postgres::Client;

use super::report::Report;
use crate::auth::tokens::{State, store};
use crate::config::{Auth, ServerConfig};
use crate::db::error::StoreError;
use store::Listed;

const AREA: &str = "auth";
/// Tokens that expire within this time leave little time to replace them; ended tokens are reported for as long.
const WARNING_DAYS: i64 = 7;
/// A token that was used within this time before its end was in use.
const IN_USE_HOURS: i64 = 24;
/// A rotation shortens a lifetime by more than rounding does.
const ROUNDING_SECONDS: f64 = 1.0;

/// Checks all tokens.
///
/// # Errors
/// If the connection is lost.
pub async fn check(report: &mut Report, server: &ServerConfig, client: &Client) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let listed = store::list(client).await?;
    for token in &listed {
        let successor = successor(token, &listed);
        match token.state() {
            State::Active => ends_soon(report, token, successor, now),
            State::Expired | State::Revoked => was_in_use(report, token, successor, now),
        }
    }
    let is_any_usable = listed.iter().any(Listed::is_usable);
    if server.common.auth == Auth::On && !is_any_usable && server.auth.issuer.auth_issuer.is_none() {
        let remedy = "pycrudapi token create --name admin --scope admin";
        report.warning(AREA, "AUTH=on, but there is neither a usable token nor an AUTH_ISSUER", remedy);
    }
    Ok(())
}

/// The token with which a rotation has replaced this one, whose lifetime is therefore shorter than at its creation.
fn successor<'a>(token: &Listed, all: &'a [Listed]) -> Option<&'a Listed> {
    let end = token.revoked_at.or(token.expires_at)?;
    let lived = end.duration_since(token.created_at).as_secs_f64();
    let is_cut_short = token.lifetime.is_none_or(|lifetime| lived < lifetime - ROUNDING_SECONDS);
    let follows = |other: &&Listed| {
        other.name == token.name
            && other.scopes == token.scopes
            && other.created_at > token.created_at
            && other.created_at <= end
            && other.is_usable()
    };
    all.iter().filter(follows).max_by_key(|other| other.created_at).filter(|_| is_cut_short)
}

/// Whether it was used after its successor was created.
fn is_used_after(token: &Listed, successor: &Listed) -> bool {
    token.last_used_at.is_some_and(|used| used > successor.created_at)
}

fn last_use(token: &Listed) -> String {
    token.last_used_at.map_or("never used".to_owned(), |used| format!("last used {used:.0}"))
}

fn ends_soon(report: &mut Report, token: &Listed, successor: Option<&Listed>, now: Timestamp) {
    let Some(end) = token.expires_at.filter(|end| *end < later(now, WARNING_DAYS * 24)) else { return };
    let (name, id) = (&token.name, token.id);
    match successor {
        Some(successor) if is_used_after(token, successor) => {
            let what = format!(
                "the token {name} ({id}) was replaced, is still in use ({}) and expires at {end:.0}",
                last_use(token)
            );
            let remedy = format!("give its user the successor token, {}, before then", successor.id);
            report.warning(AREA, what, remedy);
        }
        Some(_) => {} // an orderly rotation
        None => {
            let what =
                format!("the token {name} expires within {WARNING_DAYS} days, at {end:.0} ({})", last_use(token));
            report.warning(AREA, what, format!("pycrudapi token rotate {id} --overlap 24h"));
        }
    }
}

/// Rejected uses are not recorded, so the last use before the end is checked.
fn was_in_use(report: &mut Report, token: &Listed, successor: Option<&Listed>, now: Timestamp) {
    let end = match (token.revoked_at, successor) {
        (Some(_), None) => return, // revoked on purpose, without a successor
        (Some(end), Some(_)) => end,
        (None, _) => match token.expires_at {
            Some(end) => end,
            None => return,
        },
    };
    let is_recent = end <= now && end > later(now, -WARNING_DAYS * 24);
    let was_in_use = token.last_used_at.is_some_and(|used| used > later(end, -IN_USE_HOURS));
    if !is_recent || !was_in_use {
        return;
    }
    let (name, id) = (&token.name, token.id);
    let what = format!(
        "the token {name} ({id}) ended at {end:.0} and was in use until then ({}): its user gets 401",
        last_use(token)
    );
    match successor {
        Some(successor) => {
            // A user that has switched to the successor in time is not affected.
            if token.state() == State::Revoked || is_used_after(token, successor) {
                report.warning(AREA, what, format!("give its user the successor token, {}", successor.id));
            }
        }
        None => {
            let scopes = &token.scopes;
            report.warning(AREA, what, format!("pycrudapi token create --name {} --scope '{scopes}'", shell(name)));
        }
    }
}

/// Adds hours, as far as timestamps permit.
fn later(from: Timestamp, hours: i64) -> Timestamp {
    from.checked_add(Span::new().hours(hours)).unwrap_or(from)
}

/// Quotes a word for a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
