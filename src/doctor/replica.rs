//! The standby for list reads, if one is configured.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::connection::{self, Fault};
use super::query::one;
use super::report::Report;
use super::settings::Settings;
use crate::config::DatabaseConfig;
use crate::db::conninfo::ConnInfo;
use crate::db::error_chain::error_chain;
use crate::db::migrate;
use crate::db::replica::CLUSTER;

const AREA: &str = "replica";

/// Longest wait for the standby to replay what the primary has flushed; after it, the standby lags.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between checks of its replay position.
const REPLAY_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Checks the standby in comparison with its primary.
pub async fn check(report: &mut Report, config: &DatabaseConfig, primary: &ConnInfo) {
    let conninfo = match config.replica(primary) {
        Ok(Some(conninfo)) => conninfo,
        Ok(None) => return,
        Err(error) => return report.setting(error.to_string(), super::CORRECT),
    };
    let Ok(primary) = migrate::connect(primary).await else { return }; // reported already
    match migrate::connect(&conninfo).await {
        Err(error) => {
            for Fault { what, remedy } in connection::faults(&error, &conninfo, &Settings::of_replica(config)).await {
                report.warning(AREA, format!("lists are not read there: {what}"), remedy);
            }
        }
        Ok(standby) => {
            let role = conninfo.config.get_user().unwrap_or("pycrudapi");
            if let Err(error) = compare(report, &primary, &standby, role).await {
                report.warning(AREA, format!("the check was aborted: {}", error_chain(&error)), "see PostgreSQL's log");
            }
        }
    }
}

async fn compare(report: &mut Report, primary: &Client, standby: &Client, role: &str) -> Result<(), Error> {
    if one::<i64>(primary, CLUSTER).await? != one::<i64>(standby, CLUSTER).await? {
        let remedy = "set DATABASE_READ_URL to a standby of the primary";
        report.wrong(AREA, "it belongs to another cluster, so lists are not read there", remedy);
        return Ok(());
    }
    if !one::<bool>(standby, "select pg_is_in_recovery()").await? {
        let remedy = "set DATABASE_READ_URL to standbys, with target_session_attrs=standby";
        report.warning(AREA, "it accepts writes: it was promoted, or is the primary; lists are not read there", remedy);
        return Ok(());
    }
    if one(primary, "select pg_is_in_recovery()").await? {
        return Ok(()); // the configured primary is a standby, which was reported already
    }
    let flushed: i64 = one(primary, "select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::int8").await?;
    let begun = Instant::now();
    let lacks = loop {
        let sql = "select coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::int8";
        let lacks = flushed - one::<i64>(standby, sql).await?;
        if lacks <= 0 || begun.elapsed() > REPLAY_TIMEOUT {
            break lacks;
        }
        tokio::time::sleep(REPLAY_CHECK_INTERVAL).await; // there is no notification of a standby's replay position
    };
    if lacks > 0 {
        let what = format!("it is {lacks} bytes of WAL behind the primary after {} s", REPLAY_TIMEOUT.as_secs());
        report.warning(AREA, what, "check pg_stat_replication on the primary, and the standby's log");
    } else {
        report.fine(
            AREA,
            format!("the standby has replayed what the primary had {} ms before", begun.elapsed().as_millis()),
        );
    }
    if !one::<bool>(standby, "select pg_has_role(current_user, 'pg_read_all_stats', 'usage')").await? {
        let what = "the role for requests lacks the privilege to see the timeline that it follows: after a failover, \
         lists are not read there for up to checkpoint_timeout";
        report.warning(AREA, what, format!("grant pg_read_all_stats to {role};"));
    }
    Ok(())
}
