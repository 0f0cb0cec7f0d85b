//! `pycrudapi doctor`: checks everything that the service depends on, and reports problems first, each with the command that
//! fixes it. Nothing is changed.

mod auth;
mod backup_location;
mod backup_runs;
#[cfg(target_os = "linux")]
mod certificate;
mod connection;
mod database;
#[cfg(target_os = "linux")]
mod front;
mod machine;
mod privileges;
mod query;
mod replica;
pub mod report;
mod settings;
mod tokens;
mod views;
mod writes;

use crate::config::{BackupPlaceConfig, DatabaseConfig, ServerConfig};
use crate::db::conninfo::ConnInfo;
use crate::db::migrate;
use crate::resource::registry::Resources;
use report::Report;

/// Remedy for a setting whose error is in the finding.
const CORRECT: &str = "correct this setting: docs/settings.md";

/// Checks the machine, the components in front of the server, and its dependencies other than PostgreSQL. Without `resources`,
/// because their descriptions cannot be read, settings that refer to resources are not checked.
pub async fn check_environment(
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
        let is_away = front::service(report, port).await;
        front::nginx(report, is_away);
    }
    auth::check(report, server).await;
    auth::redis(report, &server.air_quality).await;
    machine::spool(report, &server.budget);
    machine::limits(report, &server.budget);
    backup_location::check(report, backups).await;
}

/// Checks the data directory of the embedded PostgreSQL.
pub fn check_data_dir(report: &mut Report, directory: &std::path::Path) {
    machine::disk(report, "DATA_DIR", directory);
}

/// Checks the database.
pub async fn check_database(
    report: &mut Report,
    (database, server): (&DatabaseConfig, &ServerConfig),
    conninfo: &ConnInfo,
    resources: Resources,
) {
    database::check(report, database, conninfo, resources).await;
    replica::check(report, database, conninfo).await;
    let Ok(client) = migrate::connect(conninfo).await else { return }; // reported already
    if let Err(error) = tokens::check(report, server, &client).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "cannot check tokens");
    }
}
