//! `pycrudapi doctor`: looks at everything that the service depends on, and says what is wrong first, with the command that
//! mends it. Nothing is changed.

mod auth;
mod backups;
#[cfg(target_os = "linux")]
mod certificate;
mod connection;
mod database;
#[cfg(target_os = "linux")]
mod front;
mod machine;
mod places;
mod privileges;
mod query;
mod replica;
pub mod report;
mod settings;
mod tokens;
mod writes;

use crate::config::{BackupPlaceConfig, DatabaseConfig, ServerConfig};
use crate::db::conninfo::ConnInfo;
use crate::db::migrate;
use crate::resource::registry::Resources;
use report::Report;

/// What mends a setting whose fault is in the finding.
const CORRECT: &str = "correct this setting: docs/settings.md";

/// Looks at the machine, at what stands in front of the server, and at what it asks besides PostgreSQL.
/// Without `resources`, whose descriptions cannot be read then, nothing is said of settings that name them.
pub async fn look_around(
    report: &mut Report,
    (server, backups): (&ServerConfig, &BackupPlaceConfig),
    resources: Option<Resources>,
    port: u16,
) {
    let checked = resources.map_or(Ok(()), |resources| server.auth.check(resources));
    for wrong in [checked, server.traces.check()].into_iter().filter_map(Result::err) {
        report.setting(wrong.to_string(), CORRECT);
    }
    #[cfg(target_os = "linux")]
    {
        front::service(report, port).await;
        front::nginx(report);
    }
    auth::look(report, server).await;
    auth::redis(report, &server.air_quality).await;
    machine::spool(report, &server.budget);
    machine::limits(report, &server.budget);
    places::look(report, backups).await;
}

/// Looks at the directory of a PostgreSQL of the server's own.
pub fn look_at_data(report: &mut Report, directory: &std::path::Path) {
    machine::disk(report, "DATA_DIR", directory);
}

/// Looks at the database.
pub async fn look_at_database(
    report: &mut Report,
    (database, server): (&DatabaseConfig, &ServerConfig),
    conninfo: &ConnInfo,
    resources: Resources,
) {
    database::look(report, database, conninfo, resources).await;
    replica::look(report, database, conninfo).await;
    let Ok(client) = migrate::connect(conninfo).await else { return }; // said already
    if let Err(error) = tokens::look(report, server, &client).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "there are no tokens to look at");
    }
}
