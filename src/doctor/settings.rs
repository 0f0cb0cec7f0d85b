//! The settings that configure a connection to PostgreSQL: those that are set, so that a remedy contains the right name.

use std::path::Path;

use crate::config::DatabaseConfig;

/// Names of the settings of one connection.
pub struct Settings {
    /// Host and port.
    pub address: String,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
    /// `sslmode` and `sslrootcert`.
    pub tls: String,
}

impl Settings {
    fn all(name: &str) -> Self {
        let [address, user, password, database, tls] = [(); 5].map(|()| name.to_owned());
        Self { address, user, password, database, tls }
    }

    /// For the role for requests.
    pub fn of_requests(config: &DatabaseConfig) -> Self {
        if config.database_url.is_some() {
            return Self::all("DATABASE_URL");
        }
        if let Some(path) = &config.database_url_file {
            return Self::all(&named("DATABASE_URL_FILE", path));
        }
        if config.postgres_host.is_none() {
            return Self::all("DATA_DIR");
        }
        let password = config.postgres_password_file.as_deref();
        Self {
            address: "POSTGRES_HOST and POSTGRES_PORT".to_owned(),
            user: "POSTGRES_USER".to_owned(),
            password: password.map_or("POSTGRES_PASSWORD".to_owned(), |path| named("POSTGRES_PASSWORD_FILE", path)),
            database: "POSTGRES_DB".to_owned(),
            tls: "a DATABASE_URL instead of POSTGRES_HOST".to_owned(),
        }
    }

    /// For the migrating role.
    pub fn of_migrator(config: &DatabaseConfig) -> Self {
        let password = config.migrate_password_file.as_deref();
        Self {
            user: "MIGRATE_USER".to_owned(),
            password: password.map_or("MIGRATE_PASSWORD".to_owned(), |path| named("MIGRATE_PASSWORD_FILE", path)),
            ..Self::of_requests(config)
        }
    }

    /// For the standby for list reads.
    pub fn of_replica(config: &DatabaseConfig) -> Self {
        let file = config.database_read_url_file.as_deref().filter(|_| config.database_read_url.is_none());
        Self::all(&file.map_or("DATABASE_READ_URL".to_owned(), |path| named("DATABASE_READ_URL_FILE", path)))
    }
}

fn named(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
