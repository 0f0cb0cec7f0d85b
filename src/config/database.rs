//! Settings of the database: its address, and how it is used.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::error::ConfigError;
use super::values::{Secret, millis, secret, secret_in};
use crate::db::conninfo::{ConnInfo, Migrator};
#[cfg(feature = "embedded")]
use crate::db::embedded;
use crate::db::pool::{PoolKind, PoolOptions};
use crate::db::replica::ReplicaOptions;
use crate::duration::span;

/// The database's address and how it is used.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseConfig {
    /// PostgreSQL, as a libpq URL or key/value string; supports several hosts, target_session_attrs, sslmode and sslrootcert.
    ///
    /// Example: postgres://app:secret@db.example:5432/app?sslmode=verify-full. Without it and without POSTGRES_HOST, the server
    /// starts its own PostgreSQL in DATA_DIR. A password on the command line is visible to every user of the machine in /proc:
    /// prefer the variable, DATABASE_URL_FILE or POSTGRES_PASSWORD_FILE.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub database_url: Option<Secret>,

    /// File with DATABASE_URL, such as a mounted secret.
    #[arg(long, env, hide_env_values = true)]
    pub database_url_file: Option<PathBuf>,

    /// One or several standbys of this PostgreSQL, in the form of DATABASE_URL, for reading lists, counts, statistics and
    /// exports.
    ///
    /// Missing parts (user, password, database, sslmode and sslrootcert) are as for the primary, which still answers everything
    /// else, and also lists while no standby is usable. Opens LIST_POOL_SIZE connections plus one there. Responses to changes
    /// then have the header Database-LSN; see docs/operations.md.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub database_read_url: Option<Secret>,

    /// File with DATABASE_READ_URL, such as a mounted secret.
    #[arg(long, env, hide_env_values = true)]
    pub database_read_url_file: Option<PathBuf>,

    /// Maximum lag of a standby's answers behind the primary (1s to 24h): a number with s, m or h.
    ///
    /// A shorter limit moves lists to the primary as soon as a standby lags a little; a longer one returns older data to
    /// clients that send no Database-LSN.
    #[arg(long, env, default_value = "10s", value_parser = span::<24>, hide_env_values = true)]
    pub database_read_max_lag: Duration,

    /// Longest wait of a list for a standby to replay up to its Database-LSN, in milliseconds (0 to 10000); then it is read on
    /// the primary.
    ///
    /// A shorter wait moves more lists to the primary; a longer one delays the lists of clients that have just written.
    #[arg(long, env, default_value = "100", value_parser = millis::<0, 10_000>, hide_env_values = true)]
    pub database_read_wait_ms: Duration,

    /// Host name or socket directory of PostgreSQL, instead of DATABASE_URL.
    #[arg(long, env, hide_env_values = true)]
    pub postgres_host: Option<String>,

    /// Port of PostgreSQL (1 to 65535), with POSTGRES_HOST.
    #[arg(long, env, default_value_t = 5432, value_parser = value_parser!(u16).range(1..), hide_env_values = true)]
    pub postgres_port: u16,

    /// User, with POSTGRES_HOST.
    #[arg(long, env, default_value = "postgres", hide_env_values = true)]
    pub postgres_user: String,

    /// Password, with POSTGRES_HOST.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub postgres_password: Option<Secret>,

    /// File with the password, such as a mounted secret, instead of POSTGRES_PASSWORD.
    #[arg(long, env, hide_env_values = true)]
    pub postgres_password_file: Option<PathBuf>,

    /// Database name, with POSTGRES_HOST.
    #[arg(long, env, default_value = "postgres", hide_env_values = true)]
    pub postgres_db: String,

    /// Role that migrates the database: the owner of its tables, or an administrator, which then creates the role for requests.
    ///
    /// Host, port, database and TLS are those of DATABASE_URL or POSTGRES_HOST, whose user then needs only the privilege to
    /// change rows. Without it, one role does both, and a bug in a statement could drop a table.
    #[arg(long, env, hide_env_values = true)]
    pub migrate_user: Option<String>,

    /// Password of MIGRATE_USER.
    #[arg(long, env, hide_env_values = true, value_parser = secret)]
    pub migrate_password: Option<Secret>,

    /// File with the password of MIGRATE_USER, such as a mounted secret, instead of MIGRATE_PASSWORD.
    #[arg(long, env, hide_env_values = true)]
    pub migrate_password_file: Option<PathBuf>,

    /// Directory of the server's own PostgreSQL, used when no database is configured.
    ///
    /// [default: the user's data directory, /var/lib/pycrudapi for root]
    #[arg(long, env, hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Directory of the PostgreSQL programs (postgres, initdb) for the server's own PostgreSQL.
    ///
    /// [default: the newest found on the machine]
    #[arg(long, env, hide_env_values = true)]
    pub pg_bin: Option<PathBuf>,

    /// Maximum number of connections to PostgreSQL (1 to 1000), including those for lists.
    ///
    /// Fewer make requests wait; more help only if PostgreSQL has spare cores, and count towards its max_connections. Two more
    /// are opened in addition, for the readiness probe and for notifications of changed readings; with AUTH=on, one for
    /// notifications of changed tokens.
    #[arg(long, env, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1000), hide_env_values = true)]
    pub pool_size: u32,

    /// Number of these connections reserved for lists, counts, statistics and exports (1 to 1000).
    ///
    /// Each can keep one of PostgreSQL's processors busy. More leave less processor time for single rows; fewer make lists wait
    /// for each other. At least one connection remains for everything else, and one for lists.
    #[arg(long, env, default_value_t = 2, value_parser = value_parser!(u32).range(1..=1000), hide_env_values = true)]
    pub list_pool_size: u32,

    /// Longest wait for a connection, in milliseconds (10 to 60000); then the answer is 503.
    ///
    /// A shorter wait refuses requests in a burst; a longer one lets them accumulate while PostgreSQL is unreachable.
    #[arg(long, env, default_value = "1000", value_parser = millis::<10, 60_000>, hide_env_values = true)]
    pub checkout_timeout_ms: Duration,

    /// Longest run time of a statement, in milliseconds (10 to 600000); then the answer is 503.
    ///
    /// A shorter limit cancels slow but legitimate queries; a longer one lets a query hold its connection for longer.
    #[arg(long, env, default_value = "5000", value_parser = millis::<10, 600_000>, hide_env_values = true)]
    pub statement_timeout_ms: Duration,
}

/// The configured database.
#[derive(Clone)]
pub enum DatabaseChoice {
    /// The one at this address.
    Given(Box<ConnInfo>),
    /// None is configured: the server's own.
    Embedded,
}

impl DatabaseConfig {
    /// The configured database.
    ///
    /// # Errors
    /// If the URL or a separate setting is invalid, or the password file cannot be read.
    pub fn choice(&self) -> Result<DatabaseChoice, ConfigError> {
        match self.conninfo()? {
            Some(conninfo) => Ok(DatabaseChoice::Given(Box::new(self.with_migrator(conninfo)?))),
            None => Ok(DatabaseChoice::Embedded),
        }
    }

    /// A different database than the configured one, with the same migrating role, and the same password if the URL has none
    /// and the user is the same: in a URL, some characters of a password must be encoded.
    ///
    /// # Errors
    /// As [`Self::choice`].
    pub fn at(&self, url: &str) -> Result<ConnInfo, ConfigError> {
        let mut other = ConnInfo::parse(url).map_err(ConfigError::Into)?;
        if other.config.get_password().is_none()
            && let Some(configured) = self.conninfo()?
            && configured.config.get_user() == other.config.get_user()
            && let Some(password) = configured.config.get_password()
        {
            other.config.password(password);
        }
        self.with_migrator(other)
    }

    /// The replica for lists, if one is configured.
    ///
    /// # Errors
    /// If the URL is invalid, or its file cannot be read.
    pub fn replica(&self, primary: &ConnInfo) -> Result<Option<ConnInfo>, ConfigError> {
        let url = match (&self.database_read_url, &self.database_read_url_file) {
            (Some(url), _) => url.reveal().to_owned(),
            (None, Some(path)) => secret_in("DATABASE_READ_URL_FILE", path, "DATABASE_READ_URL")?,
            (None, None) => return Ok(None),
        };
        ConnInfo::parse_with_defaults(&url, primary).map(Some).map_err(ConfigError::ReadUrl)
    }

    /// How the replica is used.
    pub fn replica_options(&self) -> ReplicaOptions {
        ReplicaOptions { max_lag: self.database_read_max_lag, wait: self.database_read_wait_ms }
    }

    fn with_migrator(&self, mut conninfo: ConnInfo) -> Result<ConnInfo, ConfigError> {
        if let Some(user) = self.migrate_user.as_deref() {
            let password = match &self.migrate_password_file {
                Some(path) => Some(secret_in("MIGRATE_PASSWORD_FILE", path, "MIGRATE_PASSWORD")?),
                None => self.migrate_password.as_ref().map(|password| password.reveal().to_owned()),
            };
            conninfo.migrator = Some(Migrator { user: user.to_owned(), password: password.map(String::into_bytes) });
        }
        Ok(conninfo)
    }

    /// The configured database, if there is one.
    fn conninfo(&self) -> Result<Option<ConnInfo>, ConfigError> {
        if let Some(url) = &self.database_url {
            return ConnInfo::parse(url.reveal()).map(Some).map_err(ConfigError::Url);
        }
        if let Some(path) = &self.database_url_file {
            let url = secret_in("DATABASE_URL_FILE", path, "DATABASE_URL")?;
            return ConnInfo::parse(&url).map(Some).map_err(ConfigError::Url);
        }
        let Some(host) = self.postgres_host.as_deref() else {
            return Ok(None);
        };
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(self.postgres_port).user(&self.postgres_user).dbname(&self.postgres_db);
        if let Some(path) = &self.postgres_password_file {
            config.password(secret_in("POSTGRES_PASSWORD_FILE", path, "POSTGRES_PASSWORD")?);
        } else if let Some(password) = &self.postgres_password {
            config.password(password.reveal());
        }
        ConnInfo::from_config(config).map(Some).map_err(ConfigError::Parts)
    }

    /// How the server's own PostgreSQL is started.
    #[cfg(feature = "embedded")]
    pub fn embedded_options(&self) -> embedded::Options {
        let variable = |name| std::env::var_os(name);
        let data_dir = self
            .data_dir
            .clone()
            .or_else(|| embedded::default_data_dir(variable("XDG_DATA_HOME").as_deref(), variable("HOME").as_deref()));
        embedded::Options {
            // Without a home directory, use the current directory.
            data_dir: data_dir.unwrap_or_else(|| PathBuf::from("var")),
            pg_bin: self.pg_bin.clone(),
            search_path: variable("PATH"),
            extra_settings: Vec::new(),
        }
    }

    /// Size and deadlines of the pool of this kind.
    pub fn pool_options(&self, kind: PoolKind) -> PoolOptions {
        let lists = self.list_pool_size.min(self.pool_size - 1).max(1);
        let size = match kind {
            PoolKind::Keys => self.pool_size.saturating_sub(lists).max(1),
            PoolKind::Lists | PoolKind::Replica => lists,
            PoolKind::Probe | PoolKind::ReplicaProbe => 1,
        };
        PoolOptions {
            kind,
            size,
            checkout_timeout: self.checkout_timeout_ms,
            statement_timeout: self.statement_timeout_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        database: DatabaseConfig,
    }

    #[test]
    fn another_database_has_the_password_of_the_same_user() {
        let cli = Cli::parse_from(["pycrudapi", "--database-url=postgres://me:p%40ss%2F%23@db/served"]);
        let password = |url| {
            let other = cli.database.at(url).expect("a URL");
            other.config.get_password().map(|password| String::from_utf8_lossy(password).into_owned())
        };
        assert_eq!(password("postgres://me@other/restored").as_deref(), Some("p@ss/#"));
        assert_eq!(password("postgres://me:own@other/restored").as_deref(), Some("own"));
        assert_eq!(password("postgres://another@other/restored"), None);
    }
}
