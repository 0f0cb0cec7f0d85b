//! Prepares the database: waits until it can be reached, migrates it, and loads the data sets that it has not been seeded with.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::error::AppError;
use crate::air_quality;
use crate::air_quality::transfer::Readings;
use crate::db::conninfo::ConnInfo;
use crate::db::copy;
use crate::db::error::{is_transient, is_unreachable};
use crate::db::migrate::{self, MigrateError};
use crate::db::roles;
use crate::ops::health::{Health, Preparation};
use crate::resource::registry::Resources;

/// The delay between two attempts grows from the first value to the second.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The steps of the preparation.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Migrate the database; otherwise wait until it has been migrated.
    pub migrate: bool,
    /// Load the data sets.
    pub seed: bool,
}

/// Retries until the database is reached, migrated and seeded.
///
/// # Errors
/// Those that retrying cannot fix.
pub async fn prepare(
    health: Arc<Health>,
    conninfo: ConnInfo,
    resources: Resources,
    steps: Steps,
) -> Result<(), AppError> {
    let mut delay = RETRY_DELAYS.0;
    loop {
        match prepare_once(&health, &conninfo, resources, steps).await {
            Ok(true) => {
                health.prepared(Preparation::Done);
                return Ok(());
            }
            Ok(false) => {
                tracing::info!("waiting for the migrations, which MIGRATE=false leaves to `pycrudapi migrate`");
            }
            // The migrating process grants privileges last, so they may be missing only temporarily.
            Err(error) if is_final(&error) && (steps.migrate || !is_not_granted(&error)) => return Err(error),
            Err(error) => {
                if matches!(&error, AppError::Migrate(error) if error.is_absence()) || is_unreachable(&error) {
                    health.prepared(Preparation::Unreachable);
                }
                tracing::warn!(error = &error as &dyn std::error::Error, "the database is not ready, retrying");
            }
        }
        // There is no notification when a database becomes reachable or is migrated by another process.
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_DELAYS.1);
    }
}

async fn prepare_once(
    health: &Health,
    conninfo: &ConnInfo,
    resources: Resources,
    steps: Steps,
) -> Result<bool, AppError> {
    let failed = |error| match error {
        MigrateError::Connect(error) if migrate::is_refusal(&error) => AppError::Refused(error),
        error => AppError::Migrate(error),
    };
    let answered = || health.prepared(Preparation::Pending);
    let mut client = if steps.migrate {
        let (applied, client) = migrate::prepare(conninfo, &resources, answered).await.map_err(failed)?;
        if applied > 0 {
            tracing::info!(applied, "migrated the database");
        }
        client
    } else {
        let client = migrate::connect(conninfo).await.map_err(failed)?;
        answered();
        if !migrate::is_current_for(&client, &resources).await.map_err(MigrateError::Connect).map_err(failed)? {
            return Ok(false);
        }
        client
    };
    if steps.seed {
        for resource in resources {
            if let Some(seed) = resource.seed {
                let seeded = copy::seed(*resource, seed, &mut client).await.map_err(AppError::Seed)?;
                log_seeded(resource.name, seeded);
            }
        }
        let seeded = copy::seed(Readings, air_quality::transfer::SEED, &mut client).await.map_err(AppError::Seed)?;
        log_seeded("synthetic air quality", seeded);
    }
    if roles::is_superuser(&client).await.map_err(MigrateError::Connect).map_err(failed)? {
        tracing::warn!(
            "the role for requests is a superuser of PostgreSQL; see docs/operations.md, \"Roles\", for a role with fewer \
             privileges"
        );
    }
    Ok(true)
}

fn log_seeded(resource: &str, rows: Option<u64>) {
    if let Some(rows) = rows {
        tracing::info!(rows, "seeded the database with {resource}");
    }
}

/// Whether the role for requests lacks a privilege.
fn is_not_granted(error: &AppError) -> bool {
    matches!(error, AppError::Migrate(MigrateError::Connect(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

/// Whether retrying cannot help: the server responded, and its response will not change.
fn is_final(error: &AppError) -> bool {
    match error {
        AppError::Refused(_) => true,
        AppError::Migrate(error) if error.is_absence() => false,
        _ => !is_transient(error),
    }
}
