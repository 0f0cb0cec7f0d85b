//! Whether changes are taken at all, and whether they end: a standby, a session that is read-only, a synchronous standby that is away.

use tokio_postgres::{Client, Error};

use super::query::{one, quoted};
use super::report::Report;
use super::settings::Settings;
use crate::db::connect::is_read_only;

const AREA: &str = "database";

/// What a read-only session takes, whoever made it so.
pub const READ_ONLY_MEND: &str = "it is read-only: name all hosts in DATABASE_URL, with target_session_attrs=read-write, or reset \
     default_transaction_read_only where pg_settings.source says that it was set";

/// Says so when the server, or this session on it, takes no changes.
///
/// # Errors
/// When the connection is lost.
pub async fn refused(report: &mut Report, client: &Client, settings: &Settings) -> Result<(), Error> {
    if one(client, "select pg_is_in_recovery()").await? {
        let mend = format!(
            "name all hosts in {}, with target_session_attrs=read-write; where the primary is lost: select pg_promote();",
            settings.place
        );
        report.wrong(AREA, "it is a standby: every change is refused (SQLSTATE 25006)", mend);
        return Ok(());
    }
    if !is_read_only(client).await? {
        report.fine(AREA, "it takes changes");
        return Ok(());
    }
    let row = client
        .query_one(
            "select current_database()::text, session_user::text, source \
             from pg_settings where name = 'default_transaction_read_only'",
            &[],
        )
        .await?;
    let (database, user, source): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (base, role) = (quoted(&database), quoted(&user));
    let reset = "reset default_transaction_read_only;";
    let mend = match source.as_str() {
        "database" => format!("alter database {base} {reset}"),
        "user" => format!("alter role {role} {reset}"),
        "database user" => format!("alter role {role} in database {base} {reset}"),
        "global" => format!("alter role all {reset}"),
        "configuration file" => {
            format!("alter system {reset} select pg_reload_conf(); or take it out of postgresql.conf")
        }
        "client" => format!("take default_transaction_read_only out of `options` in {}", settings.database),
        "command line" => "start PostgreSQL without default_transaction_read_only on its command line".to_owned(),
        _ => format!("reset default_transaction_read_only, which was set by: {source}"),
    };
    let what = format!(
        "sessions of {user} are read-only (default_transaction_read_only = on, set by: {source}): every change is refused (SQLSTATE \
         25006); providers set it when a disk is full"
    );
    report.wrong(AREA, what, mend);
    Ok(())
}

/// What the server waits for before it acknowledges a change, and who is there to be waited for.
const SYNCHRONOUS: &str = "select current_setting('synchronous_standby_names'), current_setting('synchronous_commit'), \
     (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')), \
     (select string_agg(distinct application_name, ', ') from pg_stat_replication), \
     (select count(*) from pg_stat_activity where wait_event = 'SyncRep'), \
     pg_has_role(current_user, 'pg_read_all_stats', 'usage'), session_user::text";

/// Says so when changes wait for a standby that is not there, for good.
///
/// # Errors
/// When the connection is lost.
pub async fn waited_for(report: &mut Report, client: &Client) -> Result<(), Error> {
    let row = client.query_one(SYNCHRONOUS, &[]).await?;
    let (names, commit): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let needed = standbys_needed(&names);
    if needed == 0 || ["off", "local"].contains(&commit.as_str()) {
        return Ok(());
    }
    if !row.try_get::<_, bool>(5)? {
        let role: String = row.try_get(6)?;
        let what =
            format!("{role} may not see whether a standby of synchronous_standby_names = '{names}' is connected");
        report.warning(AREA, what, format!("grant pg_read_all_stats to {};", quoted(&role)));
        return Ok(());
    }
    let (there, waiting): (i64, i64) = (row.try_get(2)?, row.try_get(4)?);
    if there >= needed {
        report.fine(
            AREA,
            format!("{there} standbys of synchronous_standby_names are connected; changes wait for {needed}"),
        );
        return Ok(());
    }
    let connected: Option<String> = row.try_get(3)?;
    let connected = connected.map_or("no standby is".to_owned(), |connected| format!("connected: {connected}"));
    let what = format!(
        "every change hangs: synchronous_standby_names = '{names}' wants {needed} standbys and {there} of them are connected \
         ({connected}); {waiting} sessions wait"
    );
    let mend = "start that standby, or give it that application_name in primary_conninfo; or, where a change may be lost with this \
         machine: alter system set synchronous_standby_names = ''; select pg_reload_conf();";
    report.wrong(AREA, what, mend);
    Ok(())
}

/// How many standbys `synchronous_standby_names` waits for: `FIRST 2 (a, b)`, `ANY 1 (*)`, `2 (a, b)`, or a list, of which one.
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
    fn as_many_standbys_are_needed_as_the_setting_says() {
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
