//! Prepares the database: waits until it is there, migrates it, and loads the data sets that it does not know to be loaded.

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

/// The wait between two attempts to prepare the database grows from the first of these to the second.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What the start may do to the database.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Migrate the database, or wait until somebody has.
    pub migrate: bool,
    /// Load the data sets.
    pub seed: bool,
}

/// Tries until the database is reached, migrated and seeded.
///
/// # Errors
/// Those that trying again cannot help.
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
            // Whoever migrates grants at the end what the migrations have made before.
            Err(error) if is_final(&error) && (steps.migrate || !is_not_granted(&error)) => return Err(error),
            Err(error) => {
                if matches!(&error, AppError::Migrate(error) if error.is_absence()) || is_unreachable(&error) {
                    health.prepared(Preparation::Unreachable);
                }
                tracing::warn!(error = &error as &dyn std::error::Error, "the database is not ready, trying again");
            }
        }
        // Nobody announces that a database has come up or was migrated by somebody else: it has to be asked.
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
                tell_seeded(resource.name, seeded);
            }
        }
        let seeded = copy::seed(Readings, air_quality::transfer::SEED, &mut client).await.map_err(AppError::Seed)?;
        tell_seeded("synthetic air quality", seeded);
    }
    if roles::is_superuser(&client).await.map_err(MigrateError::Connect).map_err(failed)? {
        tracing::warn!(
            "requests work as a superuser of PostgreSQL; docs/operations.md, \"Roles\", says how to give them less"
        );
    }
    Ok(true)
}

fn tell_seeded(resource: &str, rows: Option<u64>) {
    if let Some(rows) = rows {
        tracing::info!(rows, "seeded the database with {resource}");
    }
}

/// Whether the role of requests may not use what is there.
fn is_not_granted(error: &AppError) -> bool {
    matches!(error, AppError::Migrate(MigrateError::Connect(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

/// Whether trying again cannot help: the server answered, and the answer will stay the same.
fn is_final(error: &AppError) -> bool {
    match error {
        AppError::Refused(_) => true,
        AppError::Migrate(error) if error.is_absence() => false,
        _ => !is_transient(error),
    }
}
