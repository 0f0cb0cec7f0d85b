//! The standby that lists are read on, if the settings name one.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::connection::{self, Fault};
use super::query::one;
use super::report::Report;
use super::settings::Settings;
use crate::config::DatabaseConfig;
use crate::db::conninfo::ConnInfo;
use crate::db::migrate;
use crate::db::replica::CLUSTER;
use crate::db::error_chain::error_chain;

const AREA: &str = "replica";

/// So long a standby may take for what the primary has flushed when it is looked at; then it lags.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at the standby beside its primary.
pub async fn look(report: &mut Report, config: &DatabaseConfig, primary: &ConnInfo) {
    let conninfo = match config.replica(primary) {
        Ok(Some(conninfo)) => conninfo,
        Ok(None) => return,
        Err(error) => return report.setting(error.to_string(), super::CORRECT),
    };
    let Ok(primary) = migrate::connect(primary).await else { return }; // said already
    match migrate::connect(&conninfo).await {
        Err(error) => {
            for Fault { what, mend } in connection::faults(&error, &conninfo, &Settings::of_replica(config)).await {
                report.warning(AREA, format!("no list is read there: {what}"), mend);
            }
        }
        Ok(standby) => {
            let role = conninfo.config.get_user().unwrap_or("pycrudapi");
            if let Err(error) = look_at(report, &primary, &standby, role).await {
                report.warning(
                    AREA,
                    format!("it cannot be looked at to the end: {}", error_chain(&error)),
                    "see PostgreSQL's log",
                );
            }
        }
    }
}

async fn look_at(report: &mut Report, primary: &Client, standby: &Client, role: &str) -> Result<(), Error> {
    if one::<i64>(primary, CLUSTER).await? != one::<i64>(standby, CLUSTER).await? {
        let mend = "name a standby of the primary in DATABASE_READ_URL";
        report.wrong(AREA, "it is of another cluster, so no list is read there", mend);
        return Ok(());
    }
    if !one::<bool>(standby, "select pg_is_in_recovery()").await? {
        let mend = "name standbys in DATABASE_READ_URL, with target_session_attrs=standby";
        report.warning(AREA, "it takes changes: it was promoted, or is the primary; no list is read there", mend);
        return Ok(());
    }
    if one(primary, "select pg_is_in_recovery()").await? {
        return Ok(()); // what is called the primary is none, which was said already
    }
    let flushed: i64 = one(primary, "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8").await?;
    let begun = Instant::now();
    let lacks = loop {
        let sql = "select coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::int8";
        let lacks = flushed - one::<i64>(standby, sql).await?;
        if lacks <= 0 || begun.elapsed() > PATIENCE {
            break lacks;
        }
        tokio::time::sleep(LOOK_EVERY).await; // nothing announces how far a standby has come
    };
    if lacks > 0 {
        let what = format!("it is {lacks} bytes of the log behind the primary after {} s", PATIENCE.as_secs());
        report.warning(AREA, what, "look at pg_stat_replication on the primary, and at the standby's log");
    } else {
        report.fine(AREA, format!("the standby has what the primary had {} ms before", begun.elapsed().as_millis()));
    }
    if !one::<bool>(standby, "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')").await? {
        let what = "requests' role may not see which timeline it follows: after a failover no list is read there for up to \
                    checkpoint_timeout";
        report.warning(AREA, what, format!("grant pg_read_all_stats to {role};"));
    }
    Ok(())
}
