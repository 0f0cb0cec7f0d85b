//! Backups and restore drills, as recorded in the database.

use tokio_postgres::{Client, Error};

use super::query::one;
use super::report::Report;

pub(super) const AREA: &str = "backups";
/// A nightly backup may finish two hours later than the previous one.
pub(super) const BACKUP_AGE_MAX_HOURS: i64 = 26;
/// A weekly drill may be a day late.
const DRILL_AGE_MAX_HOURS: i64 = 8 * 24;

/// The age of the newest success of each kind, and whether a later run failed.
const NEWEST: &str = "select (extract(epoch from now() - max(finished_at) filter (where succeeded)) / 3600)::int8, \
     coalesce(max(finished_at) filter (where not succeeded) > coalesce(max(finished_at) filter (where succeeded), '-infinity'), false), \
     (select message from maintenance_runs where kind = $1 and not succeeded order by finished_at desc limit 1) \
     from maintenance_runs where kind = $1";

/// Checks the age of the newest backup and the newest drill.
///
/// # Errors
/// If the connection is lost.
pub async fn check(report: &mut Report, client: &Client) -> Result<(), Error> {
    if !one::<bool>(client, "select to_regclass('maintenance_runs') is not null").await? {
        return Ok(()); // an older schema, which another check reports
    }
    for (kind, name, age_max, command) in [
        ("backup", "backup", BACKUP_AGE_MAX_HOURS, "pycrudapi backup --to DIR"),
        ("restore-drill", "restore drill", DRILL_AGE_MAX_HOURS, "pycrudapi restore-drill --from DIR"),
    ] {
        let row = client.query_one(NEWEST, &[&kind]).await?;
        let (age, failed): (Option<i64>, bool) = (row.try_get(0)?, row.try_get(1)?);
        if failed {
            let reason: Option<String> = row.try_get(2)?;
            report.wrong(AREA, format!("the newest {name} failed: {}", reason.unwrap_or_default()), command);
        }
        match age {
            None => report.warning(AREA, format!("no {name} has succeeded yet"), command),
            Some(hours) if hours > age_max => {
                report.warning(AREA, format!("the newest {name} is {hours} hours old"), command);
            }
            Some(hours) => report.fine(AREA, format!("the newest {name} is {hours} hours old")),
        }
    }
    Ok(())
}
