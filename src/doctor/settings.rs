//! Which settings say where PostgreSQL is and who connects: those that were given, so that a remedy names what has to be corrected.

use std::path::Path;

use crate::config::DatabaseConfig;

/// The names of the settings of one connection.
pub struct Settings {
    /// Host and port.
    pub place: String,
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
        let [place, user, password, database, tls] = [(); 5].map(|()| name.to_owned());
        Self { place, user, password, database, tls }
    }

    /// Of the role that requests work as.
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
            place: "POSTGRES_HOST and POSTGRES_PORT".to_owned(),
            user: "POSTGRES_USER".to_owned(),
            password: password.map_or("POSTGRES_PASSWORD".to_owned(), |path| named("POSTGRES_PASSWORD_FILE", path)),
            database: "POSTGRES_DB".to_owned(),
            tls: "a DATABASE_URL in place of POSTGRES_HOST".to_owned(),
        }
    }

    /// Of whoever migrates.
    pub fn of_migrator(config: &DatabaseConfig) -> Self {
        let password = config.migrate_password_file.as_deref();
        Self {
            user: "MIGRATE_USER".to_owned(),
            password: password.map_or("MIGRATE_PASSWORD".to_owned(), |path| named("MIGRATE_PASSWORD_FILE", path)),
            ..Self::of_requests(config)
        }
    }

    /// Of the standby that lists are read on.
    pub fn of_replica(config: &DatabaseConfig) -> Self {
        let file = config.database_read_url_file.as_deref().filter(|_| config.database_read_url.is_none());
        Self::all(&file.map_or("DATABASE_READ_URL".to_owned(), |path| named("DATABASE_READ_URL_FILE", path)))
    }
}

fn named(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}
