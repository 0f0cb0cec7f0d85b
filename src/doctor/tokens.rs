//! Tokens of the service's own: those that will not be taken for long, and those that were in use until they were not taken any more.

use jiff::{Span, Timestamp};
use tokio_postgres::Client;

use super::report::Report;
use crate::auth::tokens::{State, store};
use crate::config::{Auth, ServerConfig};
use crate::db::error::StoreError;
use store::Listed;

const AREA: &str = "auth";
/// Whoever uses a token that ends sooner has no time to get another; and so long afterwards somebody may still wonder.
const WARNING_DAYS: i64 = 7;
/// A token that was used in the last day before its end was in use.
const IN_USE_HOURS: i64 = 24;
/// What a rotation takes off a lifetime is more than rounding does.
const ROUNDING_SECONDS: f64 = 1.0;

/// Looks at all of them.
///
/// # Errors
/// When the connection is lost.
pub async fn look(report: &mut Report, server: &ServerConfig, client: &Client) -> Result<(), StoreError> {
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
        let mend = "pycrudapi token create --name admin --scope admin";
        report.warning(AREA, "AUTH=on, and there is neither a token that can be used nor an AUTH_ISSUER", mend);
    }
    Ok(())
}

/// The token that a rotation has put in the place of this one, which ends sooner than it was made for then.
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

/// Whether it was used after there was another in its place.
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
                "the token {name} ({id}) was replaced, is still in use ({}) and expires {end:.0}",
                last_use(token)
            );
            let mend = format!("give whoever uses it the one that replaces it, {}, before then", successor.id);
            report.warning(AREA, what, mend);
        }
        Some(_) => {} // it goes as it should
        None => {
            let what = format!("the token {name} expires within {WARNING_DAYS} days, {end:.0} ({})", last_use(token));
            report.warning(AREA, what, format!("pycrudapi token rotate {id} --overlap 24h"));
        }
    }
}

/// Uses that are refused are not counted, so that the last ones before the end have to tell.
fn was_in_use(report: &mut Report, token: &Listed, successor: Option<&Listed>, now: Timestamp) {
    let end = match (token.revoked_at, successor) {
        (Some(_), None) => return, // whoever revokes a token without another in its place means it
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
        "the token {name} ({id}) ended {end:.0} and was in use until then ({}): whoever has it is answered 401",
        last_use(token)
    );
    match successor {
        Some(successor) => {
            // Whoever has used the overlap to take the other one is not concerned.
            if token.state() == State::Revoked || is_used_after(token, successor) {
                report.warning(AREA, what, format!("give them the one that replaces it, {}", successor.id));
            }
        }
        None => {
            let scopes = &token.scopes;
            report.warning(AREA, what, format!("pycrudapi token create --name {} --scope '{scopes}'", shell(name)));
        }
    }
}

/// So many hours later, as far as times go.
fn later(from: Timestamp, hours: i64) -> Timestamp {
    from.checked_add(Span::new().hours(hours)).unwrap_or(from)
}

/// A word for a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
