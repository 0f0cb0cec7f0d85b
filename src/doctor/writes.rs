//! Whether writes are accepted, and whether they complete: a standby, a read-only session, a missing synchronous standby.

use tokio_postgres::{Client, Error};

use super::query::{one, quoted};
use super::report::Report;
use super::settings::Settings;
use crate::db::connect::is_read_only;

const AREA: &str = "database";

/// Remedy for a read-only session.
pub const READ_ONLY_REMEDY: &str = "it is read-only: specify all hosts in DATABASE_URL, with \
 target_session_attrs=read-write, or reset default_transaction_read_only, whose origin is in pg_settings.source";

/// Reports whether the server, or this session, rejects writes.
///
/// # Errors
/// If the connection is lost.
pub async fn rejected(report: &mut Report, client: &Client, settings: &Settings) -> Result<(), Error> {
    if one(client, "select pg_is_in_recovery()").await? {
        let remedy = format!(
            "specify all hosts in {}, with target_session_attrs=read-write; if the primary is lost: select pg_promote();",
            settings.address
        );
        report.wrong(AREA, "it is a standby: writes are rejected (SQLSTATE 25006)", remedy);
        return Ok(());
    }
    if !is_read_only(client).await? {
        report.fine(AREA, "it accepts writes");
        return Ok(());
    }
    let row = client
        .query_one(
            "select current_database()::text, session_user::text, source from pg_settings where name = \
             'default_transaction_read_only'",
            &[],
        )
        .await?;
    let (database, user, source): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (base, role) = (quoted(&database), quoted(&user));
    let reset = "reset default_transaction_read_only;";
    let remedy = match source.as_str() {
        "database" => in_a_writing_session(&format!("alter database {base} {reset}")),
        "user" => in_a_writing_session(&format!("alter role {role} {reset}")),
        "database user" => in_a_writing_session(&format!("alter role {role} in database {base} {reset}")),
        "global" => in_a_writing_session(&format!("alter role all {reset}")),
        "configuration file" => {
            format!("alter system {reset} select pg_reload_conf(); or remove it from postgresql.conf")
        }
        "client" => format!("remove default_transaction_read_only from `options` in {}", settings.database),
        "command line" => "start PostgreSQL without default_transaction_read_only on its command line".to_owned(),
        _ => format!("reset default_transaction_read_only, which was set by: {source}"),
    };
    let what = format!(
        "sessions of {user} are read-only (default_transaction_read_only = on, set by: {source}): writes are rejected \
         (SQLSTATE 25006); some providers set it when a disk is full"
    );
    report.wrong(AREA, what, remedy);
    Ok(())
}

/// The session of whoever pastes the statement may be read-only too.
fn in_a_writing_session(statement: &str) -> String {
    format!("begin read write; {statement} commit;")
}

/// The synchronous standbys that the server waits for before it acknowledges a write, and those that are connected.
const SYNCHRONOUS: &str = "select current_setting('synchronous_standby_names'), current_setting('synchronous_commit'), \
     (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')), (select string_agg(distinct \
     application_name, ', ') from pg_stat_replication), (select count(*) from pg_stat_activity where wait_event = \
     'SyncRep'), pg_has_role(current_user, 'pg_read_all_stats', 'usage'), session_user::text";

/// Reports whether writes wait for a synchronous standby that is not connected.
///
/// # Errors
/// If the connection is lost.
pub async fn synchronous(report: &mut Report, client: &Client) -> Result<(), Error> {
    let row = client.query_one(SYNCHRONOUS, &[]).await?;
    let (names, commit): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let needed = standbys_needed(&names);
    if needed == 0 || ["off", "local"].contains(&commit.as_str()) {
        return Ok(());
    }
    if !row.try_get::<_, bool>(5)? {
        let role: String = row.try_get(6)?;
        let what = format!(
            "{role} lacks the privilege to see whether a standby of synchronous_standby_names = '{names}' is connected"
        );
        report.warning(AREA, what, format!("grant pg_read_all_stats to {};", quoted(&role)));
        return Ok(());
    }
    let (present, waiting): (i64, i64) = (row.try_get(2)?, row.try_get(4)?);
    if present >= needed {
        report.fine(
            AREA,
            format!("{present} standbys of synchronous_standby_names are connected; writes wait for {needed}"),
        );
        return Ok(());
    }
    let connected: Option<String> = row.try_get(3)?;
    let connected = connected.map_or("none is connected".to_owned(), |connected| format!("connected: {connected}"));
    let what = format!(
        "writes block: synchronous_standby_names = '{names}' requires {needed} standbys, {present} of which are connected \
         ({connected}); {waiting} sessions are waiting"
    );
    let remedy = "start that standby, or set that application_name in its primary_conninfo; or, if losing changes with \
     this machine is acceptable: alter system set synchronous_standby_names = ''; select pg_reload_conf();";
    report.wrong(AREA, what, remedy);
    Ok(())
}

/// Number of standbys that `synchronous_standby_names` requires: `FIRST 2 (a, b)`, `ANY 1 (*)`, `2 (a, b)`, or a list, which
/// requires one.
fn standbys_needed(names: &str) -> i64 {
    let names = names.trim();
    let without_method = ["first", "any"].iter().find_map(|method| {
        let (word, rest) = names.split_at_checked(method.len())?;
        let is_method =
            word.eq_ignore_ascii_case(method) && rest.starts_with(|letter: char| letter.is_ascii_whitespace());
        is_method.then(|| rest.trim_start())
    });
    let rest = without_method.unwrap_or(names);
    let number = rest.split_once('(').and_then(|(number, _)| number.trim().parse().ok());
    number.unwrap_or_else(|| i64::from(!names.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::standbys_needed;

    #[test]
    fn the_number_of_required_standbys_is_parsed() {
        for (names, needed) in [
            ("", 0),
            ("  ", 0),
            ("*", 1),
            ("a", 1),
            ("a, b", 1),
            ("first", 1),
            ("any, b", 1),
            ("\"any (2)\"", 1),
            ("2 (a, b, c)", 2),
            ("FIRST 3 (a, b, c)", 3),
            ("ANY 2(a, b)", 2),
            ("any  2 (*)", 2),
        ] {
            assert_eq!(standbys_needed(names), needed, "{names}");
        }
    }
}
