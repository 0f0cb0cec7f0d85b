//! Why no session on PostgreSQL can be opened, and the remedy for each reason.
//!
//! Reasons are distinguished by SQLSTATE, by the PostgreSQL function that reports the error (messages are translated), and by
//! the kind of an I/O error. Passwords are never printed.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use rustls::CertificateError;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::{DbError, SqlState};

use super::query::quoted;
use super::settings::Settings;
use crate::db::connect::ConnectError;
use crate::db::conninfo::ConnInfo;
use crate::db::error_chain::error_chain;
use crate::db::migrate::{self, MigrateError};

/// The function that rejects by pg_hba.conf (`src/backend/libpq/auth.c`), except for a wrong password.
const BY_HBA: &str = "ClientAuthentication";
/// The functions that check the role (`src/backend/utils/init/miscinit.c`) and the database (`postinit.c`).
const BY_ROLE: &str = "InitializeSessionUserId";
const BY_DATABASE: &str = "CheckMyDatabase";

/// A reason and its remedy.
pub struct Fault {
    /// The reason, as a sentence.
    pub what: String,
    /// The command or setting that fixes it.
    pub remedy: String,
}

/// Why no connection could be opened: one reason for each host, if there are several.
pub async fn faults(error: &MigrateError, to: &ConnInfo, settings: &Settings) -> Vec<Fault> {
    let hosts = host_names(to);
    let mut faults = Vec::new();
    if hosts.len() > 1 {
        for (index, host) in hosts.iter().enumerate() {
            if let Err(error) = migrate::connect_to(to, index).await {
                let what = format!("{} ({host})", error_chain(&error));
                faults.push(Fault { what, remedy: remedy(&error, to, settings, host).await });
            }
        }
    }
    if faults.is_empty() {
        // Also for several hosts, if they respond by now.
        let host = hosts.join(", ");
        let what = format!("{} ({host}, database {}, user {})", error_chain(error), database(to), user(to));
        faults.push(Fault { what, remedy: remedy(error, to, settings, &host).await });
    }
    faults
}

/// Whether a server responded that does not match target_session_attrs.
pub fn is_of_wrong_kind(error: &MigrateError) -> bool {
    cause::<ConnectError>(error).is_some_and(|error| matches!(error, ConnectError::WrongKind))
}

/// Remedy for one failure; `host` is the host that it concerns.
async fn remedy(error: &MigrateError, to: &ConnInfo, settings: &Settings, host: &str) -> String {
    if let Some(answer) = cause::<DbError>(error) {
        return if is_rejected_without_tls(answer, to).await {
            format!(
                "pg_hba.conf accepts only sessions with TLS: sslmode=require, or better verify-full, in {}",
                settings.tls
            )
        } else {
            of_answer(answer, to, settings).unwrap_or_else(|| general(settings))
        };
    }
    if matches!(error, MigrateError::Silent) {
        return format!(
            "{host} accepts connections but does not respond: check for a stopped or overloaded PostgreSQL, or a proxy \
             without a server; otherwise correct {}",
            settings.address
        );
    }
    if let Some(kind) = cause::<ConnectError>(error).and_then(|error| of_kind(error, to, settings)) {
        return kind;
    }
    let is_socket = cause::<ConnectError>(error).is_some_and(|error| matches!(error, ConnectError::Socket(_)));
    if let Some(io) = cause::<io::Error>(error) {
        return match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(refused) => of_certificate(refused, settings),
            None if is_socket => of_socket(io, to, settings, host),
            None => foreign(settings, host),
        };
    }
    of_driver(error, to, settings, host)
}

/// The first cause of this type.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    successors(Some(error), |&cause| cause.source()).find_map(|cause| cause.downcast_ref::<T>())
}

fn user(to: &ConnInfo) -> String {
    to.config.get_user().unwrap_or("pycrudapi").to_owned()
}

fn database(to: &ConnInfo) -> String {
    to.config.get_dbname().map_or_else(|| user(to), str::to_owned)
}

/// The hosts, in readable form.
fn host_names(to: &ConnInfo) -> Vec<String> {
    let ports = to.config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let hosts = to.config.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(index)),
    });
    let named: Vec<String> = hosts.collect();
    if named.is_empty() {
        let addresses = to.config.get_hostaddrs().iter().enumerate();
        return addresses.map(|(index, address)| format!("{address}:{}", port(index))).collect();
    }
    named
}

/// Whether the same session is accepted with TLS; tested if the settings disable TLS.
async fn is_rejected_without_tls(answer: &DbError, to: &ConnInfo) -> bool {
    if answer.routine() != Some(BY_HBA) || to.config.get_ssl_mode() != SslMode::Disable {
        return false;
    }
    let mut with_tls = to.clone();
    with_tls.config.ssl_mode(SslMode::Require);
    match migrate::connect(&with_tls).await {
        Ok(_) => true,
        Err(error) => cause::<DbError>(&error).is_some_and(|answer| answer.code() == &SqlState::INVALID_PASSWORD),
    }
}

/// PostgreSQL responds and rejects the session.
fn of_answer(answer: &DbError, to: &ConnInfo, settings: &Settings) -> Option<String> {
    let (user, database) = (user(to), database(to));
    let (role, base) = (quoted(&user), quoted(&database));
    let routine = answer.routine().unwrap_or_default();
    Some(match answer.code() {
        &SqlState::INVALID_PASSWORD => format!(
            "correct {}, or have an administrator set the password: \\password {role} in psql; or create a missing role: \
             create role {role} login",
            if settings.password == settings.user {
                settings.password.clone()
            } else {
                format!("{} or {}", settings.password, settings.user)
            }
        ),
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION if routine == BY_ROLE => {
            format!("correct {}, or: alter role {role} login; (create role {role} login; if it does not exist)", settings.user)
        }
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "add to pg_hba.conf on the server, before the line that rejects: host {base} {role} ADDRESS/32 scram-sha-256 (this \
             machine's address, as in the message; `local` for a socket), then: select pg_reload_conf();"
        ),
        &SqlState::INVALID_CATALOG_NAME => {
            format!("correct {}, or have an administrator create it: create database {base} owner {role};", settings.database)
        }
        &SqlState::INSUFFICIENT_PRIVILEGE if routine == BY_DATABASE => format!("grant connect on database {base} to {role};"),
        &SqlState::TOO_MANY_CONNECTIONS if routine == BY_ROLE => {
            format!("alter role {role} connection limit -1; or lower POOL_SIZE of each server")
        }
        &SqlState::TOO_MANY_CONNECTIONS if routine == BY_DATABASE => {
            format!("alter database {base} connection limit -1; or lower POOL_SIZE of each server")
        }
        &SqlState::TOO_MANY_CONNECTIONS => {
            "see which sessions use them: select usename, application_name, state, count(*) from pg_stat_activity group \
             by 1, 2, 3; then lower POOL_SIZE of each server, or raise max_connections (alter system, then a restart of \
             PostgreSQL)"
                .to_owned()
        }
        &SqlState::CANNOT_CONNECT_NOW => "it is starting, recovering or stopping: wait and repeat the check; if it \
         persists, see the end of PostgreSQL's log (a standby accepts sessions only with hot_standby = on)"
            .to_owned(),
        &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN => {
            "it is stopping, or one of its backends has crashed: see the end of PostgreSQL's log, and start it if it does \
             not recover".to_owned()
        }
        &SqlState::READ_ONLY_SQL_TRANSACTION => super::writes::READ_ONLY_REMEDY.to_owned(),
        &SqlState::UNDEFINED_OBJECT | &SqlState::INVALID_PARAMETER_VALUE | &SqlState::CANT_CHANGE_RUNTIME_PARAM => {
            format!("correct or remove `options` in {}", settings.database)
        }
        &SqlState::PROTOCOL_VIOLATION => {
            format!("a pooler in front of PostgreSQL rejects the session: check its log and its list of databases and \
             users, or correct {}", settings.address)
        }
        _ => return None,
    })
}

/// No server matches target_session_attrs.
fn of_kind(error: &ConnectError, to: &ConnInfo, settings: &Settings) -> Option<String> {
    match error {
        ConnectError::WrongKind if to.config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly => {
            Some(format!(
                "it accepts writes: remove target_session_attrs=read-only from {0}, or specify a standby in {0}",
                settings.address
            ))
        }
        ConnectError::WrongKind => Some(format!(
            "it is a standby or read-only: specify all hosts of the cluster in {}, or promote one: select pg_promote();",
            settings.address
        )),
        ConnectError::Replaced => Some(
            "stop this old primary (pg_ctl stop -m immediate), and make it a standby of the new one: pg_rewind"
                .to_owned(),
        ),
        ConnectError::Silent | ConnectError::Unreachable | ConnectError::Socket(_) | ConnectError::Postgres(_) => None,
    }
}

/// No connection can be opened.
fn of_socket(io: &io::Error, to: &ConnInfo, settings: &Settings, host: &str) -> String {
    let Settings { address: setting, .. } = settings;
    let is_file = to.config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
    match io.kind() {
        ErrorKind::ConnectionRefused if is_file => {
            format!(
                "this socket was left by a killed PostgreSQL: start it (systemctl start postgresql), or correct {setting}"
            )
        }
        ErrorKind::ConnectionRefused => format!(
            "no server listens on {host}: start PostgreSQL there (systemctl start postgresql), check that its \
             listen_addresses and port match, or correct {setting}"
        ),
        ErrorKind::NotFound if is_file => format!(
            "there is no such socket: start PostgreSQL, or set {setting} to the directory in its unix_socket_directories \
             and its port"
        ),
        ErrorKind::PermissionDenied if is_file => {
            format!(
                "grant this user access to the directory and the socket (unix_socket_permissions), or correct {setting}"
            )
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => format!(
            "{host} cannot be reached: check that the machine is running, and firewalls, network policies and routes in \
             between, or correct {setting}"
        ),
        ErrorKind::InvalidInput => format!("specify as many hostaddr as host in {setting}"),
        // Only the name resolution fails without an error number of the system.
        _ if io.raw_os_error().is_none() => {
            format!(
                "the host name cannot be resolved: getent hosts {}; check the machine's DNS, or correct {setting}",
                name_of(host)
            )
        }
        _ => format!("check the network between this machine and {host}, or correct {setting}"),
    }
}

fn name_of(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(host, _)| host)
}

/// One side rejects the other's certificate.
fn of_certificate(refused: &rustls::Error, settings: &Settings) -> String {
    let tls = &settings.tls;
    match refused {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("set the CA of PostgreSQL's certificate: sslrootcert=/path/to/ca.pem in {tls}")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "use a host name that is in PostgreSQL's certificate ({}), or issue a certificate for this name; \
             sslmode=verify-ca in {tls} does not check the name",
            settings.address
        ),
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew PostgreSQL's certificate (ssl_cert_file), then: select pg_reload_conf();".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "set the clocks of both machines (timedatectl set-ntp true), or issue a new certificate".to_owned(),
        rustls::Error::InvalidCertificate(_) => {
            format!("issue a new certificate for PostgreSQL (ssl_cert_file), or correct sslrootcert in {tls}")
        }
        _ => format!(
            "check PostgreSQL's log, its ssl_min_protocol_version (TLS 1.2 or 1.3) and ssl_ciphers, or correct {tls}"
        ),
    }
}

/// The driver itself reports the error. Its kind is only in its text, which a test checks.
fn of_driver(error: &MigrateError, to: &ConnInfo, settings: &Settings, host: &str) -> String {
    let Some(driver) = cause::<tokio_postgres::Error>(error) else { return general(settings) };
    let text = driver.to_string();
    if text.starts_with("error performing TLS handshake") {
        return format!(
            "PostgreSQL does not offer TLS: set ssl = on, ssl_cert_file and ssl_key_file on the server; or, if the \
             network in between is private, sslmode=disable in {}",
            settings.tls
        );
    }
    if text.starts_with("invalid configuration") && to.config.get_password().is_none_or(<[u8]>::is_empty) {
        return format!("PostgreSQL requires a password: set it in {}", settings.password);
    }
    if text.starts_with("authentication error") {
        return "set scram-sha-256 for this role in pg_hba.conf, then: select pg_reload_conf(); GSSAPI, SSPI and client \
         certificates are not supported"
            .to_owned();
    }
    foreign(settings, host)
}

fn foreign(settings: &Settings, host: &str) -> String {
    format!(
        "the server on {host} closes the connection or is not PostgreSQL: check its log and that of a proxy in front, or \
         correct {}",
        settings.address
    )
}

fn general(settings: &Settings) -> String {
    format!("see PostgreSQL's log, or correct {}", settings.address)
}
